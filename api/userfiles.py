"""What a specification that names uploaded files means in its project."""

from __future__ import annotations

from api.deps import Caller, Parts
from pruning_core.datasets.uploads import UserFile
from pruning_core.errors import DatasetNotFound
from pruning_core.spec.prune import PruneSpec
from store import files


def resolve(prune: PruneSpec, caller: Caller, parts: Parts) -> dict[str, UserFile]:
    """Return the uploaded files that calibrate and evaluate, by the names that the specification gives them.

    Raises:
        DatasetNotFound: the project has no such file.
    """
    document = prune.model_dump(mode="json")
    if not files.named(document):
        return {}
    with parts.database.read() as session:
        rows = files.of_prune(session, document, project=caller.project)
    for name in sorted(files.named(document) - rows.keys()):
        raise DatasetNotFound(
            f"This project has no uploaded file {name.removeprefix(files.PREFIX)}.",
            suggestions=("list them with GET /v1/files", "upload it with POST /v1/files"),
            pointer=_pointer(name, prune),
        )
    # What counts at submit is known of a file; a worker opens it, wherever it then lies.
    return {
        name: UserFile.model_validate({"path": file.id, **files.facts(file)})
        for name, file in rows.items()
    }


def _pointer(name: str, prune: PruneSpec) -> str:
    """Return the field that names a file."""
    if name in {task.name for task in prune.calibration.tasks}:
        return "/prune/calibration"
    training = prune.recovery is not None and name in (prune.recovery.tasks or ())
    return "/prune/recovery/tasks" if training else "/prune/evaluation/tasks"
