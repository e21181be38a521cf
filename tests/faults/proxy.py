"""A TCP proxy that can refuse, cut, and swallow the reply to a given request."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK = 65536


class Proxy:
    """Forwards to one server; `close` cuts every connection and refuses new ones, `open` ends that."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._closed = threading.Event()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._after: bytes | None = None
        self._cut_on: bytes | None = None
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def close(self) -> None:
        """Cut all connections and accept no more."""
        self._closed.set()
        self.cut()

    def open(self) -> None:
        """Accept again."""
        self._closed.clear()

    def cut(self) -> None:
        """Cut all connections; new ones are welcome."""
        for pair in self._pairs:
            for end in pair:
                _close(end)
        self._pairs.clear()

    def swallow_reply(self, *, to: bytes, after: bytes) -> None:
        """Once `after` was asked, forward the next `to` and cut before its reply: did it happen or not?"""
        self._after, self._cut_on = after, to

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._closed.is_set():
                _close(client)
                continue
            server = socket.create_connection(self._target)
            self._pairs.append((client, server))
            self._pump(client, server, questions=True)
            self._pump(server, client, questions=False)

    def _pump(self, source: socket.socket, target: socket.socket, *, questions: bool) -> None:
        def run() -> None:
            with suppress(OSError):
                while data := source.recv(CHUNK):
                    doomed = questions and self._doomed(data)
                    if doomed:
                        _half_close(target, source, data)
                        return
                    target.sendall(data)
            _close(source)
            _close(target)

        threading.Thread(target=run, daemon=True).start()

    def _doomed(self, data: bytes) -> bool:
        if self._after is not None and self._after in data:
            self._after = None
        if self._after is None and self._cut_on is not None and self._cut_on in data:
            self._cut_on = None
            self.cuts += 1
            return True
        return False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()
        self.close()


def _half_close(server: socket.socket, client: socket.socket, data: bytes) -> None:
    """Hang up on the client, then let the server do what was asked."""
    _close(client)
    server.sendall(data)
    threading.Event().wait(0.3)
    _close(server)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
