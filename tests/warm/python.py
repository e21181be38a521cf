"""An executable that is Python, but for our numerical modules: those a warm server forks."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.warm import client

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
    names = {"python": sys.executable, "client": client.__file__, "socket": socket}
    script = SCRIPT.format(**{name: shlex.quote(str(value)) for name, value in names.items()})
    socket.with_suffix(".owner").write_text(str(owner))
    path.write_text(script)
    path.chmod(0o700)
    return path
