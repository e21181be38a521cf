"""Takes queued jobs and runs each in a child process."""

import time

BEGUN = time.monotonic()
"""When this process began: nothing of ours is imported before it."""
