"""Everything that can be refused at submit, in one call: model source, architecture, pattern, tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pruning_core.admission.data_checks import check_data
from pruning_core.admission.model_checks import check_sizes, read_local
from pruning_core.admission.upload_checks import check_same_bytes, check_uploads
from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.datasets.data_used import DataUsed
from pruning_core.datasets.tasks import NO_FILES, Files
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec


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
    facts = of_hub if model.path is None else read_local(model.path, prune, roots)
    if facts is not None:
        check_sizes(facts, prune)
    check_uploads(prune, files)
    check_same_bytes(prune, files)
    check_data(prune, DataUsed(tasks_dir, files), facts.max_positions if facts else None)
    return facts
