"""Puts a verified checkpoint into the artifact store and says what the job has won."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pruning_core.intake.presets import Preset
from pruning_core.spec.methods import CRePE
from pruning_core.spec.model import ModelRef
from pruning_core.spec.patterns import NofM
from pruning_core.spec.report import FileEntry, Report, SearchReport
from store.artifacts import ArtifactRow, LocalArtifacts
from store.presets import NewPreset
from worker.errors import UploadFailed

MAX_MODEL = 400
"""Characters of a model's reference that a preset keeps, from the end."""


def prefix(job_id: str, epoch: int) -> str:
    """Return the key below which one attempt's artifacts lie; no two attempts share one."""
    return f"jobs/{job_id}/e{epoch}"


def upload(
    checkpoint: Path,
    report: Report,
    artifacts: LocalArtifacts,
    *,
    under: str,
    go_on: Callable[[], bool],
) -> list[ArtifactRow] | None:
    """Store every file of the checkpoint; None where `go_on` said no between two files.

    Raises:
        UploadFailed: the files are not exactly those that the report lists.
    """
    found = {
        str(path.relative_to(checkpoint))
        for path in checkpoint.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    listed = {entry.path for entry in report.files}
    if found != listed:
        raise UploadFailed(
            f"The checkpoint's files differ from the report's list: {sorted(found ^ listed)}"
        )
    rows = []
    for entry in report.files:
        if not go_on():
            return None
        rows.append(_put(checkpoint, entry, artifacts, under))
    return rows


def _put(checkpoint: Path, entry: FileEntry, artifacts: LocalArtifacts, under: str) -> ArtifactRow:
    key = f"{under}/{entry.path}"
    size, sha256 = artifacts.put(checkpoint / entry.path, key)
    if (size, sha256) != (entry.bytes, entry.sha256):
        raise UploadFailed(
            f"{entry.path} has sha256 {sha256} and {size} bytes, the report says {entry.sha256} and {entry.bytes}"
        )
    return ArtifactRow(
        path=entry.path, key=key, sha256=sha256, bytes=size, media_type=entry.media_type
    )


def result(report: Report) -> dict[str, Any]:
    """Return the short form of the report that the job itself shows."""
    return {
        "params_before": report.parameters,
        "params_after": report.parameters,
        "params_nonzero": report.parameters_nonzero,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "achieved_sparsity": report.sparsity,
        "quality": {
            measured.task: {"ppl_dense": measured.dense, "ppl_pruned": measured.pruned}
            for measured in report.perplexity
        },
        "speed": {"prune_over_forward": report.timing.prune_over_forward},
        "loads_in": report.verification.loads_in,
        "warnings": list(report.warnings),
    }


def preset(report: Report, model: ModelRef) -> NewPreset | None:
    """Return what the job shall store for other jobs, None where it was not asked to."""
    method, found = report.spec.method, report.search
    if not isinstance(method, CRePE) or method.search is None or method.search.save_as is None:
        return None
    assert found is not None
    coefficients = Preset(
        alpha=found.alpha,
        beta=found.beta,
        gamma=found.gamma,
        kernel=found.kernel,
        neighbour=method.neighbour,
        found=_origin(report, found, model),
    )
    return NewPreset(method.search.save_as, coefficients.model_dump(mode="json"))


def _origin(report: Report, found: SearchReport, model: ModelRef) -> str:
    name = f"{model.ref}@{model.revision}" if model.revision else model.ref
    name = name if len(name) <= MAX_MODEL else f"...{name[-MAX_MODEL:]}"
    pattern = report.spec.pattern
    amount = (
        f"{pattern.n}:{pattern.m} kept"
        if isinstance(pattern, NofM)
        else f"sparsity {report.spec.ratio:g}"
    )
    kept = ", RIA kept" if found.kept_ria else ""
    return f"{found.name} on {name}, {amount}, {found.windows} windows{kept}"
