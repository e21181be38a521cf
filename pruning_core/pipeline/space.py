"""Whether a run's disk holds what it will write, before any work is done."""

from __future__ import annotations

import shutil

from pruning_core.errors import DiskFull
from pruning_core.pipeline.run import Run
from pruning_core.pipeline.saving import rounded_dtype
from pruning_core.recover.job import REPORT, STATE
from pruning_core.system import run_folder

_STATE_BYTES = {"full": 12, "lora": 1}
"""Of training's state per parameter, beside the best weights: what is trained and AdamW's moments, in float32."""


def check_space(run: Run) -> None:
    """Block files, the checkpoint and each further form of it take about the model's size; finished blocks are there already."""
    there = sum(path.stat().st_size for path in run.work.glob(run_folder.BLOCKS))
    copies = (rounded_dtype(run) is not None) + (run.spec.output.gguf is not None)
    needed = int((2.1 + copies) * run.facts.bytes) - there + _recovery_space(run)
    free = shutil.disk_usage(run.out).free
    if free < needed:
        raise DiskFull(
            f"{needed} bytes of disk are needed for work files and result, {free} are free"
        )


def _recovery_space(run: Run) -> int:
    """Return the bytes of the trained checkpoint and of training's state, which is there twice while it is replaced."""
    recovery, folder = run.spec.recovery, run.work / run_folder.RECOVERY
    if recovery is None or (folder / REPORT).is_file():
        return 0
    states = 2 * (_STATE_BYTES[recovery.method] * run.facts.parameters + run.facts.bytes)
    there = sum(path.stat().st_size for path in folder.glob(STATE))
    return run.facts.bytes + states - there
