"""Windows that recovery trains and validates on: all of the calibration splits."""

from __future__ import annotations

import torch

from pruning_core.spec.calibration import DEFAULT_SAMPLES, SELF_TASK, Calibration
from pruning_core.spec.recovery import DEFAULT_SEQ_LEN, Recovery
from pruning_core.text.packing import packed
from pruning_core.text.task_reader import TaskReader

MAX_BYTES = 64 << 20
"""How much is read of a hub's corpus."""


def training_windows(reader: TaskReader, params: Recovery, spec: Calibration) -> torch.Tensor:
    """Return all full windows of the calibration splits of the tasks that train, int64 [windows, seq].

    Args:
        reader: The model's.
        params: Name the tasks, by default those that calibrate, and the tokens per window, by default 512 or the
            model's limit where that is smaller.
        spec: Says of multiple-choice items whether their answers train, and of windows how they begin.

    Raises:
        DatasetTooSmall: a task does not fill one window.
    """
    length = reader.window_length(params.seq_len or min(DEFAULT_SEQ_LEN, reader.max_positions))
    windows: list[torch.Tensor] = []
    for task in params.tasks or tuple(task.name for task in spec.tasks):
        if task == SELF_TASK:
            windows += reader.self_generated(DEFAULT_SAMPLES, length, spec.seed)
            continue
        data = reader.data_used.split(task, "calibration", limit_bytes=MAX_BYTES)
        parts = reader.texts(data, answers=spec.answers)
        windows += packed(reader, parts, length, spec.bos, f"Task {task!r}").tokens
    return torch.stack(windows)
