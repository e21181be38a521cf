"""What a request asks of its model: is the model there and sound, does the pattern fit, can the units go."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pruning_core.admission.unit_checks import check_units
from pruning_core.checkpoints.completeness import wrappers
from pruning_core.checkpoints.facts import CheckpointFacts, inspect, is_gguf
from pruning_core.checkpoints.private_view import view
from pruning_core.checkpoints.tokenizer_files import require_tokenizer
from pruning_core.errors import ModelInvalid, UnsupportedPattern
from pruning_core.fetch.allowed_paths import allowed_path
from pruning_core.gguf.file import GgufModel, read_model
from pruning_core.gguf.writable import names_of, table_of
from pruning_core.spec.patterns import NofM, Row, removed_count
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.unit_method import UnitMethod
from pruning_core.structure.layout import layout_of


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


def read_local(path: Path, prune: PruneSpec, roots: Sequence[Path]) -> CheckpointFacts:
    """Return the facts of a local model that can be pruned so, as far as its headers tell.

    Raises:
        ModelNotFound, ModelNotAllowed, ModelInvalid, UnsafePickle, UnsupportedModel: what is wrong with it.
    """
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


def check_sizes(facts: CheckpointFacts, prune: PruneSpec) -> None:
    """Refuse what cannot be made of this model.

    Raises:
        UnsupportedPattern, UnitsUnsupported, SizeUnreachable: what.
    """
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
    prefixes = wrappers(facts.wrapped)
    if prefixes:
        raise ModelInvalid(
            f"The names of the tensors carry {' and '.join(map(repr, prefixes))}, which training put there: stock "
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
