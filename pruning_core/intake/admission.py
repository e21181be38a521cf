"""Everything that can be refused at submit, in one call: model source, architecture, pattern, tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pruning_core.errors import DatasetTooSmall, ModelInvalid
from pruning_core.intake.checkpoint import (
    CheckpointFacts,
    check_gguf,
    has_tokenizer,
    inspect,
    is_gguf,
)
from pruning_core.intake.source import allowed_path
from pruning_core.intake.tasks import TaskInfo, find
from pruning_core.spec.calibration import DEFAULT_SEQ_LEN
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec


def check(
    model: ModelRef, prune: PruneSpec, *, roots: Sequence[Path], tasks_dir: Path | None
) -> None:
    """Raise the first `PruningError` that this request is certain to end with.

    A hub model is not looked up here (the worker resolves it); a local one is read as far as its headers.
    """
    facts = None if model.path is None else _check_local(model.path, roots)
    limit = facts.max_positions if facts else None
    window = prune.calibration.seq_len or min(DEFAULT_SEQ_LEN, limit or DEFAULT_SEQ_LEN)
    if limit and window > limit:
        raise ModelInvalid(
            f"seq_len is {window}, the model takes windows of at most {limit} tokens"
        )
    for task in prune.calibration.tasks:
        _check_size(find(task.name, tasks_dir), task.samples or 1, window)
    for name in prune.evaluation_tasks:
        find(name, tasks_dir)


def _check_local(path: Path, roots: Sequence[Path]) -> CheckpointFacts | None:
    real = allowed_path(path, roots)
    if is_gguf(real):
        check_gguf(real)
        return None
    root = next(root.resolve() for root in roots if real.is_relative_to(root.resolve()))
    facts = inspect(real, root=root)
    if not has_tokenizer(real):
        raise ModelInvalid(
            f"{real.name} has no tokenizer.json; calibration and perplexity need its tokenizer"
        )
    return facts


def _check_size(task: TaskInfo, samples: int, seq_len: int) -> None:
    """A token takes at least one byte, so a text of fewer bytes can never fill the windows."""
    if task.calibration_bytes < samples * seq_len:
        raise DatasetTooSmall(
            f"Task {task.name!r} has {task.calibration_bytes} bytes for calibration; "
            f"{samples} windows of {seq_len} tokens need at least {samples * seq_len}.",
            suggestions=("ask for fewer samples", "use a shorter seq_len", "add another task"),
        )
