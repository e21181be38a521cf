"""Whether the broker can be reached: reported by `/readyz`, needed by nothing."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

State = Literal["ok", "away", "none"]

CONNECT_SECONDS = 1.0
FRESH_SECONDS = 5.0
_PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "amqps": 5671}


@dataclass
class BrokerProbe:
    """Opens a connection at most every few seconds, whoever asks how often."""

    url: str | None
    _state: State = "none"
    _checked_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self) -> State:
        """Return `none` where no broker is configured."""
        if self.url is None:
            return "none"
        with self._lock:
            if time.monotonic() - self._checked_at > FRESH_SECONDS:
                self._state = _connects(self.url)
                self._checked_at = time.monotonic()
            return self._state


def _connects(url: str) -> State:
    parts = urlsplit(url)
    address = (parts.hostname or "localhost", parts.port or _PORTS.get(parts.scheme, 6379))
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return "away"
    return "ok"
