"""Whether the hub answers, as far as the front end can see: shown by `GET /v1/tasks`, needed by nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import httpx2

from pruning_core import settings

ANSWER_SECONDS = 1.0
FRESH_SECONDS = 60.0


@dataclass
class HubProbe:
    """Asks at most once a minute, in a thread of its own: looking up a name has no time-out."""

    address: str = field(default_factory=settings.hub_address)
    _answers: bool = False
    _asked_at: float = float("-inf")
    _asking: threading.Thread | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answers(self) -> bool:
        """Return what was found last; wait a second at most."""
        if settings.hub_offline():
            return False
        asking = self._ask()
        asking.join(ANSWER_SECONDS)
        return self._answers

    def _ask(self) -> threading.Thread:
        with self._lock:
            now = time.monotonic()
            over = self._asking is None or not self._asking.is_alive()
            if self._asking is None or (over and now - self._asked_at > FRESH_SECONDS):
                self._asking = threading.Thread(target=self._look, name="hub-probe", daemon=True)
                self._asked_at = now
                self._asking.start()
            return self._asking

    def _look(self) -> None:
        try:
            httpx2.head(self.address, timeout=ANSWER_SECONDS)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError):
            self._answers = False
        else:
            self._answers = True
