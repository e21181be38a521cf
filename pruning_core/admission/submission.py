"""Everything that can be refused at submit, in one call: model source, architecture, pattern, tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pruning_core import settings
from pruning_core.admission.unit_checks import check_units
from pruning_core.checkpoints.completeness import wrappers
from pruning_core.checkpoints.facts import CheckpointFacts, inspect, is_gguf
from pruning_core.checkpoints.private_view import view
from pruning_core.checkpoints.tokenizer_files import require_tokenizer
from pruning_core.datasets.gate_metrics import check_gate
from pruning_core.datasets.tasks import NO_FILES, Files, Split, Task, evaluated, find
from pruning_core.errors import (
    DataLeakage,
    DatasetInvalid,
    DatasetNotFound,
    DatasetTooSmall,
    DatasetUnreachable,
    ModelInvalid,
    TokensInvalid,
    UnsupportedPattern,
)
from pruning_core.fetch.allowed_paths import allowed_path
from pruning_core.gguf.file import GgufModel, read_model
from pruning_core.gguf.writable import names_of, table_of
from pruning_core.spec.calibration import DEFAULT_SEQ_LEN, SELF_TASK
from pruning_core.spec.model import ModelRef
from pruning_core.spec.patterns import NofM, Row, removed_count
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import DEFAULT_SEQ_LEN as RECOVERY_SEQ_LEN
from pruning_core.spec.unit_method import UnitMethod
from pruning_core.structure.layout import layout_of


def check(
    model: ModelRef,
    prune: PruneSpec,
    *,
    roots: Sequence[Path],
    tasks_dir: Path | None,
    files: Files = NO_FILES,
    of_hub: CheckpointFacts | None = None,
) -> CheckpointFacts | None:
    """Raise the first `PruningError` that this request is certain to end with; return what is known of its model.

    The hub is not asked here; a local model is read as far as its headers.

    Args:
        model: What is pruned.
        prune: How.
        roots: Folders below which local models may lie.
        tasks_dir: The operator's tasks.
        files: The uploaded files that `prune` names, by `file:<id>`.
        of_hub: Facts of a hub model, where the hub was asked.
    """
    facts = of_hub if model.path is None else _read_local(model.path, prune, roots)
    if facts is not None:
        _check_sizes(facts, prune)
    limit = facts.max_positions if facts else None
    _check_uploads(prune, files)
    _check_same_bytes(prune, files)
    if prune.recovery is not None:
        window = _window("recovery", prune.recovery.seq_len, limit, RECOVERY_SEQ_LEN)
        _check_recovery(prune, window, tasks_dir, files)
    if prune.needs_calibration:
        window = _window("calibration", prune.calibration.seq_len, limit, DEFAULT_SEQ_LEN)
        _check_calibration(prune, window, tasks_dir, files)
    if prune.evaluation_tasks and prune.evaluation.harness == "secateur":
        window = _window("evaluation", prune.evaluation.seq_len, limit, DEFAULT_SEQ_LEN)
        _check_evaluation(prune, window, tasks_dir, files)
    return facts


def _fitted(prune: PruneSpec) -> dict[str, str]:
    """Return the tasks whose calibration split is read, by name, each with the field that names it."""
    recovery = prune.recovery
    named: dict[str, str] = {}
    if recovery is not None and recovery.tasks is not None:
        named = dict.fromkeys(recovery.tasks, "/prune/recovery/tasks")
    if prune.needs_calibration or (recovery is not None and recovery.tasks is None):
        calibrating = (task.name for task in prune.calibration.tasks)
        named |= dict.fromkeys(calibrating, "/prune/calibration/tasks")
    return named


def _check_uploads(prune: PruneSpec, files: Files) -> None:
    """Refuse an upload in a role that its sender has ruled out."""
    for name, pointer in _fitted(prune).items():
        if name in files and files[name].use == "evaluation":
            raise DatasetNotFound(
                f"{name} was uploaded for evaluation alone: a model cannot be fitted to it.",
                suggestions=("upload it with the use `calibration` or `both`",),
                pointer=pointer,
            )
    for name in prune.evaluation.tasks or ():
        if name in files and files[name].use == "calibration":
            raise DataLeakage(
                f"{name} was uploaded for calibration alone: evaluating on it would measure what the model was fitted to.",
                suggestions=("name another evaluation task", "upload it with the use `both`"),
                pointer="/prune/evaluation/tasks",
            )


def _check_same_bytes(prune: PruneSpec, files: Files) -> None:
    """Refuse to evaluate on the very bytes that the model is fitted to, uploaded a second time for another use."""
    if prune.evaluation.harness != "secateur":
        return
    fitted = {files[name].sha256: name for name in _fitted(prune) if name in files}
    for name in evaluated(prune, files):
        other = fitted.get(files[name].sha256) if name in files else None
        if other not in (None, name):
            raise DataLeakage(
                f"{name}, which is evaluated, holds the same bytes as {other}, to which the model is fitted.",
                suggestions=("upload the data once, with the use `both`", "evaluate on other data"),
                pointer="/prune/evaluation/tasks",
            )


def _check_calibration(prune: PruneSpec, window: int, tasks_dir: Path | None, files: Files) -> None:
    spec = prune.calibration
    beside = -(-prune.held_out_windows // len(spec.tasks))
    if prune.reconstruction and len(spec.tasks) == 1 and spec.samples_of(spec.tasks[0]) == 1:
        raise DatasetTooSmall("Reconstruction needs two calibration windows: one is held out.")
    for task in spec.tasks:
        found = find(task.name, tasks_dir, files)
        _check_split(found, "calibration")
        samples = (spec.samples_of(task) or 1) + beside
        if spec.layout == "packed":
            _check_size(found, "calibration", samples, window)
        else:
            _check_items(found, samples)


def _check_recovery(prune: PruneSpec, window: int, tasks_dir: Path | None, files: Files) -> None:
    """Refuse tasks without text to train on; one window trains and one validates at least."""
    assert prune.recovery is not None
    names = prune.recovery.tasks or tuple(task.name for task in prune.calibration.tasks)
    for name in names:
        found = find(name, tasks_dir, files)
        _check_split(found, "calibration")
        if len(names) == 1:
            _check_size(found, "calibration", 2, window)


def _check_evaluation(prune: PruneSpec, window: int, tasks_dir: Path | None, files: Files) -> None:
    names = evaluated(prune, files)
    if SELF_TASK in names:
        raise DatasetInvalid(
            f"{SELF_TASK!r} is text that the dense model writes: it calibrates and is not evaluated.",
            pointer="/prune/evaluation/tasks",
        )
    for name in names:
        found = find(name, tasks_dir, files)
        _check_split(found, "eval")
        _check_size(found, "eval", 1, window)
    for gate in prune.gates:
        if gate.task not in names:
            raise DatasetInvalid(f"The gate {gate.metric} bounds a task that is not evaluated.")
        check_gate(gate, find(gate.task, tasks_dir, files).kind)


def inspect_local(path: Path, roots: Sequence[Path]) -> CheckpointFacts:
    """Return the facts of a model on this machine; of a GGUF file, those of the checkpoint that it will become.

    Raises:
        ModelNotFound, ModelNotAllowed, ModelInvalid, UnsafePickle, UnsupportedModel: what is wrong with it.
    """
    with _viewed(path, roots) as model:
        return read_model(model).facts if is_gguf(model) else inspect(model)


@contextmanager
def _viewed(path: Path, roots: Sequence[Path]) -> Iterator[Path]:
    _, root = allowed_path(path, roots)
    own = tempfile.TemporaryDirectory()
    with own as folder, view(path, Path(folder) / "view", root=root) as model:
        yield model


def _read_local(path: Path, prune: PruneSpec, roots: Sequence[Path]) -> CheckpointFacts:
    with _viewed(path, roots) as model:
        if is_gguf(model):
            read = read_model(model)
            facts = read.facts
            _check_vocabulary(path.name, read, prune)
        else:
            facts = inspect(model)
            _check_names(facts)
            _check_tokenizer(model, prune)
    return facts


def _check_sizes(facts: CheckpointFacts, prune: PruneSpec) -> None:
    """Refuse what cannot be made of this model."""
    if prune.output.gguf is not None:
        names_of(facts.config, table_of(facts.config), facts.tensors)
    layout = layout_of(facts, prune.output)
    if isinstance(prune.method, UnitMethod):
        check_units(prune, layout)
    else:
        _check_pattern(prune, layout.input_widths)
        _check_fold(prune, layout.head_dim)


def _check_vocabulary(name: str, model: GgufModel, prune: PruneSpec) -> None:
    reads_text = prune.needs_calibration or prune.recovery or prune.evaluation_tasks
    cuts_tokens = isinstance(prune.method, UnitMethod) and "vocabulary" in prune.method.unit_kinds
    if (reads_text or cuts_tokens) and not model.has_tokenizer:
        raise ModelInvalid(
            f"{name} holds no tokenizer, which calibration, recovery and perplexity need",
            suggestions=("convert the model to GGUF again, with its tokenizer",),
        )


def _check_names(facts: CheckpointFacts) -> None:
    """Refuse names that stock transformers does not know, while they are easily mended; a run reads them without."""
    found = wrappers(facts.wrapped)
    if found:
        raise ModelInvalid(
            f"The names of the tensors carry {' and '.join(map(repr, found))}, which training put there: stock "
            "transformers would fill such a model at random.",
            suggestions=(
                "strip it from the names, or save the model from within: model.module or model._orig_mod, "
                "save_pretrained()",
            ),
        )


def _check_tokenizer(folder: Path, prune: PruneSpec) -> None:
    if prune.needs_calibration or prune.recovery or prune.evaluation_tasks:
        require_tokenizer(folder)
    cuts_tokens = isinstance(prune.method, UnitMethod) and "vocabulary" in prune.method.unit_kinds
    if cuts_tokens and not (folder / "tokenizer.json").is_file():
        raise ModelInvalid(
            f"{folder.name} has no tokenizer.json, of which the part `embedding` removes tokens",
            suggestions=("leave the part `embedding` out", "add tokenizer.json to the folder"),
            pointer="/prune/method/parts",
        )


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


def _check_fold(prune: PruneSpec, head: int) -> None:
    """Refuse to fold channel orders into value heads that groups do not divide."""
    pattern = prune.pattern
    if isinstance(pattern, NofM) and pattern.permute == "fold" and head % pattern.m:
        raise UnsupportedPattern(
            f"permute: fold orders the channels of a head, and groups of {pattern.m} do not divide its {head}.",
            suggestions=("permute: none", "permute: mask"),
        )


def _window(use: str, asked: int | None, limit: int | None, default: int) -> int:
    """Return the fewest tokens that a window can have, as far as the model's limit is known here."""
    if asked and limit and asked > limit:
        raise TokensInvalid(
            f"{use}.seq_len is {asked}, the model takes windows of at most {limit} tokens"
        )
    return asked or min(default, limit or 1)


def _check_split(task: Task, split: Split) -> None:
    """Refuse a split that is not there, or that nobody may fetch."""
    if task.origin == "hub" and settings.hub_offline():
        raise DatasetUnreachable(
            f"The data of task {task.name!r} lies on the hub, which this service may not reach (HF_HUB_OFFLINE).",
            suggestions=("upload the data with POST /v1/files", "name a local task"),
        )
    if task.bytes(split) == 0:
        part = "evaluation" if split == "eval" else "calibration"
        raise DatasetNotFound(
            f"Task {task.name!r} has no data for {part}.",
            suggestions=("name `evaluation.tasks`",) if split == "eval" else ("name another task",),
        )


def _check_items(task: Task, samples: int) -> None:
    """Refuse more samples than an upload has items, where each is a sample."""
    items = task.items("calibration")
    if items is not None and items < samples:
        raise DatasetTooSmall(
            f"Task {task.name!r} has {items} items for calibration; {samples} samples of one item each were asked for.",
            suggestions=("ask for fewer samples", "use the layout `packed`", "upload more items"),
        )


def _check_size(task: Task, split: Split, samples: int, seq_len: int) -> None:
    """A token takes at least one byte, so a text of fewer bytes can never fill the windows.

    Questions are not bounded so: their templates add text.
    """
    size = task.bytes(split)
    if task.kind == "text" and size is not None and size < samples * seq_len:
        raise DatasetTooSmall(
            f"Task {task.name!r} has {size} bytes of text for this; "
            f"{samples} windows of {seq_len} tokens need at least {samples * seq_len}.",
            suggestions=("ask for fewer samples", "use a shorter seq_len", "add another task"),
        )
