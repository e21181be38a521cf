"""Imports what takes long once, and forks for every process that a client asks for.

Run as `python -m tests.warm.server SOCKET`. A process starts with the modules of a fresh one that has imported them, and
with nothing that another process did. It ends with its client, and the server with the process that holds the session.
"""

from __future__ import annotations

import array
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.warm.client import STREAMS


def bound(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
    except OSError:
        sys.exit(0)  # another server was faster
    listener.listen(64)
    return listener


def import_all() -> None:
    """Import what the processes of a run import; no tensor is touched, for threads do not survive a fork."""
    import transformers
    import transformers.models.llama.modeling_llama

    import pruning_core.pipeline.phases  # noqa: F401

    for name in ("AutoModelForCausalLM", "AutoTokenizer", "GenerationConfig"):
        assert getattr(transformers, name)


@dataclass(frozen=True)
class Wanted:
    """What a client asks for, and the streams it lends."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    streams: list[int]


def asked(connection: socket.socket) -> Wanted:
    streams = array.array("i")
    room = socket.CMSG_LEN(len(STREAMS) * streams.itemsize)
    _, ancillary, *_ = connection.recvmsg(1, room)
    for _level, _kind, data in ancillary:
        streams.frombytes(data)
    with connection.makefile("rb") as lines:
        return Wanted(**json.loads(lines.readline()), streams=list(streams))


class Server:
    """Forks, and tells clients how their process ended."""

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self._listener = listener
        self._owner = os.pidfd_open(owner)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._owner, selectors.EVENT_READ)

    def forked(self) -> Wanted:
        """Serve until the owner ends; return in every process that was forked."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    wanted = self._accept()
                    if wanted is not None:
                        return wanted
                elif key.fileobj == self._owner:
                    sys.exit(0)
                else:
                    self._end(*key.data)

    def _accept(self) -> Wanted | None:
        connection, _ = self._listener.accept()
        wanted = asked(connection)
        pid = os.fork()
        if pid == 0:
            connection.close()
            self._listener.close()
            return wanted
        for stream in wanted.streams:
            os.close(stream)
        ended = os.pidfd_open(pid)
        data = (connection, pid, ended)
        self._selector.register(ended, selectors.EVENT_READ, data)
        self._selector.register(connection, selectors.EVENT_READ, data)
        return None

    def _end(self, connection: socket.socket, pid: int, ended: int) -> None:
        """Either the process ended by itself, or its client did, and takes it along."""
        if ended not in self._selector.get_map():
            return
        self._selector.unregister(ended)
        self._selector.unregister(connection)
        signal.pidfd_send_signal(ended, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(ended)
        with connection:
            try:
                connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            except BrokenPipeError:
                return


def become(wanted: Wanted) -> None:
    """Be the process that the client asked for."""
    for stream, own in zip(wanted.streams, STREAMS, strict=True):
        os.dup2(stream, own)
        os.close(stream)
    os.chdir(wanted.folder)
    os.environ.clear()
    os.environ.update(wanted.environment)
    flag, module, *arguments = wanted.arguments
    assert flag == "-m"
    sys.argv = [module, *arguments]
    sys.path[0] = wanted.folder
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # taking the libraries down would touch, and so copy, every page


def main(path: str) -> None:
    listener = bound(path)
    import_all()
    gc.freeze()  # a collection would touch, and so copy, every page
    owner = int(Path(path).with_suffix(".owner").read_text())
    become(Server(listener, owner).forked())


if __name__ == "__main__":
    main(sys.argv[1])
