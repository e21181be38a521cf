"""Has the server run `python -m MODULE`, and stands for that process: its streams, its folder, its environment, its end.

Run as `python -IS client.py SERVER SOCKET -m MODULE ...`; SERVER is the module of the server, started where nothing
listens at SOCKET yet.
"""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
import time

START_SECONDS = 120.0
STREAMS = (0, 1, 2)


def connected(server: str, path: str) -> socket.socket:
    """Return a connection; the first to come starts the server, which is deaf until it has imported everything."""
    deadline = time.monotonic() + START_SECONDS
    started = False
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
        else:
            return connection
        if not started:
            start(server, path)
            started = True
        if time.monotonic() > deadline:
            raise TimeoutError(f"no server at {path}")
        time.sleep(0.05)


def start(server: str, path: str) -> None:
    """Start a server; where several are started at once, all but one find the socket taken, and end."""
    repository = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(f"{path}.log", "ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", server, path],
            cwd=repository,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def main(server: str, path: str, *arguments: str) -> None:
    wanted = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with connected(server, path) as connection:
        streams = array.array("i", STREAMS)
        connection.sendmsg([b"-"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
        connection.sendall(json.dumps(wanted).encode() + b"\n")
        status = int(connection.recv(16))
    if status < 0:
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
