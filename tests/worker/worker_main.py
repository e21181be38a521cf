"""`python -m worker` with another child: COMMAND as JSON."""

from __future__ import annotations

import json
import logging
import sys

from store import logs
from store.settings import Settings
from worker.__main__ import run

if __name__ == "__main__":
    logs.configure(sys.stderr.fileno(), libraries=logging.WARNING)
    run(Settings(), command=json.loads(sys.argv[1]))
