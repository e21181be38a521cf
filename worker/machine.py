"""`python -m worker.machine`: what this machine prunes on and how fast it multiplies matrices, without torch."""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pruning_core.settings import accelerators_hidden

SIZE = 1024
SECONDS = 0.4


def device() -> str:
    """Return `gpu` where torch's build and a device node promise one, else `cpu`."""
    if version("torch").endswith("+cpu") or accelerators_hidden():
        return "cpu"
    nodes = [*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("kfd")]
    return "gpu" if nodes else "cpu"


def cpu_flops() -> float:
    """Return products and sums of float32 per second, in matrices as models have them: the best of some, so that a busy moment counts for little."""
    left = np.ones((SIZE, SIZE), dtype=np.float32)
    ended = time.perf_counter() + SECONDS
    rates: list[float] = []
    while time.perf_counter() < ended or len(rates) < 3:
        started = time.perf_counter()
        left @ left
        rates.append(2 * SIZE**3 / (time.perf_counter() - started))
    return max(rates)


def main() -> None:
    kind = device()
    machine = {"device": kind, "flops": cpu_flops() if kind == "cpu" else None}
    sys.stdout.write(json.dumps(machine) + "\n")


if __name__ == "__main__":
    main()
