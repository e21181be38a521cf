"""The supervisor's side is small: torch costs seconds and half a gigabyte, and belongs to the child."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "modules",
    ["worker.doorbell, worker.supervise, worker.slots, worker.__main__", "worker.reconcile"],
)
def test_no_torch_in_the_supervisor(modules: str) -> None:
    code = (
        f"import {modules}, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
