"""The child's watch over its parent: a child whose supervisor is gone has nobody to work for."""

from __future__ import annotations

import os
import signal
import threading
import time

WATCH_SECONDS = 0.5


def die_with(parent: int) -> None:
    """Kill this process and its helpers soon after `parent` has ended."""
    threading.Thread(target=_watch, args=(parent,), name="orphan watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
