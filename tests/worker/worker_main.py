"""`python -m worker` with another child: COMMAND as JSON."""

from __future__ import annotations

import json
import sys

from store.settings import Settings
from worker.__main__ import run
from worker.logs import configure_logging
from worker.supervise import RUNNER

if __name__ == "__main__":
    configure_logging()
    run(Settings(), command=json.loads(sys.argv[1]) or RUNNER)
