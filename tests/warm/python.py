"""An executable that is Python, but for our numerical modules: those a warm server forks."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from tests.warm import client

REAL_PYTHON = sys.executable
"""Tests let `sys.executable` be another."""
SCRIPT = """\
#!/bin/sh
case "$1 $2" in
"-m pruning_core."*) exec {python} -IS {client} tests.warm.server {socket} "$@" ;;
*) exec {python} "$@" ;;
esac
"""


def warm_python(folder: Path, owner: int) -> Path:
    """Write the executable into a folder of the session's own; its server ends with the process `owner`."""
    path, socket = folder / "python", folder / "warm.socket"
    names = {"python": REAL_PYTHON, "client": client.__file__, "socket": socket}
    script = SCRIPT.format(**{name: shlex.quote(str(value)) for name, value in names.items()})
    put(socket.with_suffix(".owner"), str(owner))
    put(path, script)
    return path


def put(path: Path, text: str) -> None:
    """Write so that who reads meanwhile, for another process of the session, reads all or what was there."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.chmod(0o700)
    draft.replace(path)
