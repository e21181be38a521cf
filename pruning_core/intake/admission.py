"""Everything that can be refused at submit, in one call: model source, architecture, pattern, tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pruning_core.errors import DatasetTooSmall, ModelInvalid, TokensInvalid, UnsupportedPattern
from pruning_core.intake.checkpoint import (
    CheckpointFacts,
    check_gguf,
    has_tokenizer,
    inspect,
    is_gguf,
)
from pruning_core.intake.source import allowed_path
from pruning_core.intake.tasks import find
from pruning_core.spec.calibration import DEFAULT_SEQ_LEN
from pruning_core.spec.model import ModelRef
from pruning_core.spec.patterns import NofM, Row, removed_count
from pruning_core.spec.prune import PruneSpec


def check(
    model: ModelRef, prune: PruneSpec, *, roots: Sequence[Path], tasks_dir: Path | None
) -> None:
    """Raise the first `PruningError` that this request is certain to end with.

    A hub model is not looked up here (the worker resolves it); a local one is read as far as its headers.
    """
    facts = None if model.path is None else _check_local(model.path, prune, roots)
    limit = facts.max_positions if facts else None
    if prune.needs_calibration:
        window = _window("calibration", prune.calibration.seq_len, limit)
        tasks, wanted = prune.calibration.tasks, prune.held_out_windows
        beside = -(-wanted // len(tasks))
        if prune.reconstruction and len(tasks) == 1 and tasks[0].samples == 1:
            raise DatasetTooSmall("Reconstruction needs two calibration windows: one is held out.")
        for task in tasks:
            found = find(task.name, tasks_dir)
            _check_size(task.name, found.calibration_bytes, (task.samples or 1) + beside, window)
    if prune.evaluation_tasks:
        window = _window("evaluation", prune.evaluation.seq_len, limit)
        for name in prune.evaluation_tasks:
            _check_size(name, find(name, tasks_dir).evaluation_bytes, 1, window)


def _check_local(path: Path, prune: PruneSpec, roots: Sequence[Path]) -> CheckpointFacts | None:
    real = allowed_path(path, roots)
    if is_gguf(real):
        check_gguf(real)
        return None
    root = next(root.resolve() for root in roots if real.is_relative_to(root.resolve()))
    facts = inspect(real, root=root)
    reads_text = prune.needs_calibration or prune.evaluation_tasks
    if reads_text and not has_tokenizer(real):
        raise ModelInvalid(
            f"{real.name} has no tokenizer.json; calibration and perplexity need its tokenizer"
        )
    _check_pattern(prune, facts.input_widths())
    _check_fold(prune, facts.config)
    return facts


def _check_pattern(prune: PruneSpec, widths: set[int]) -> None:
    """Refuse what no matrix of such a width can be given; the engine checks each matrix again."""
    for width in sorted(widths):
        if isinstance(prune.pattern, NofM) and width % prune.pattern.m:
            raise UnsupportedPattern(
                f"The model has matrices of {width} inputs, which groups of {prune.pattern.m} do not divide."
            )
        if isinstance(prune.pattern, Row) and not 0 < removed_count(prune.ratio, width) < width:
            raise UnsupportedPattern(
                f"A sparsity of {prune.ratio} removes {removed_count(prune.ratio, width)} of {width} weights per row."
            )


def _check_fold(prune: PruneSpec, config: Mapping[str, Any]) -> None:
    """Refuse to fold channel orders into value heads that groups do not divide."""
    width, heads = (
        next((config[name] for name in names if config.get(name)), 0)
        for names in (("hidden_size", "n_embd"), ("num_attention_heads", "n_head"))
    )
    head = config.get("head_dim") or (width // heads if heads else 0)
    pattern = prune.pattern
    if isinstance(pattern, NofM) and pattern.permute == "fold" and head % pattern.m:
        raise UnsupportedPattern(
            f"permute: fold orders the channels of a head, and groups of {pattern.m} do not divide its {head}.",
            suggestions=("permute: none", "permute: mask"),
        )


def _window(use: str, asked: int | None, limit: int | None) -> int:
    """Return the fewest tokens that a window can have, as far as the model's limit is known here."""
    if asked and limit and asked > limit:
        raise TokensInvalid(
            f"{use}.seq_len is {asked}, the model takes windows of at most {limit} tokens"
        )
    return asked or min(DEFAULT_SEQ_LEN, limit or 1)


def _check_size(task: str, size: int, samples: int, seq_len: int) -> None:
    """A token takes at least one byte, so a text of fewer bytes can never fill the windows."""
    if size < samples * seq_len:
        raise DatasetTooSmall(
            f"Task {task!r} has {size} bytes of text for this; "
            f"{samples} windows of {seq_len} tokens need at least {samples * seq_len}.",
            suggestions=("ask for fewer samples", "use a shorter seq_len", "add another task"),
        )
