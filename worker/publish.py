"""Puts a verified checkpoint into the artifact store and says what the job has won."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from pruning_core.admission.presets import searched
from pruning_core.errors import QualityGateFailed
from pruning_core.spec.model import ModelRef
from pruning_core.spec.patterns import NofM
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.files import FileEntry
from pruning_core.spec.report_parts.quality import GateReport
from pruning_core.spec.report_parts.search import SearchReport
from pruning_core.system import run_folder
from store.artifact_store import ArtifactStore
from store.artifacts import ArtifactRow, report_page_key
from store.presets import NewPreset
from worker.errors import UploadFailed

MAX_MODEL = 400
"""Characters of a model's reference that a preset keeps, from the end."""


def upload(
    checkpoint: Path,
    report: Report,
    artifacts: ArtifactStore,
    *,
    under: str,
    go_on: Callable[[], bool],
    on_bytes: Callable[[int], None] = lambda _bytes: None,
) -> list[ArtifactRow] | None:
    """Store every file of the checkpoint, and the report's page beside it; None where `go_on` said no between two files.

    Raises:
        UploadFailed: the files are not exactly those that the report lists.
    """
    present = {
        str(path.relative_to(checkpoint))
        for path in checkpoint.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    listed = {entry.path for entry in report.files}
    if present != listed:
        raise UploadFailed(
            f"The checkpoint's files differ from the report's list: {sorted(present ^ listed)}"
        )
    rows = []
    for entry in report.files:
        if not go_on():
            return None
        rows.append(_put(checkpoint, entry, artifacts, under, on_bytes))
    page = checkpoint.parent / run_folder.PAGE
    if page.is_file():
        artifacts.put(page, report_page_key(under))
    return rows


def _put(
    checkpoint: Path,
    entry: FileEntry,
    artifacts: ArtifactStore,
    under: str,
    on_bytes: Callable[[int], None],
) -> ArtifactRow:
    key = f"{under}/{entry.path}"
    size, sha256 = artifacts.put(checkpoint / entry.path, key, on_bytes)
    if (size, sha256) != (entry.bytes, entry.sha256):
        raise UploadFailed(
            f"{entry.path} has sha256 {sha256} and {size} bytes, the report says {entry.sha256} and {entry.bytes}"
        )
    return ArtifactRow(
        path=entry.path, key=key, sha256=sha256, bytes=size, media_type=entry.media_type
    )


def after(report: Report, seconds: float) -> Report:
    """Return the report with the time that storing its files took."""
    phases = {**report.timing.phases, "uploading": seconds}
    timing = report.timing.model_copy(update={"phases": phases})
    finished_at = report.finished_at + timedelta(seconds=seconds)
    return report.model_copy(update={"timing": timing, "finished_at": finished_at})


def result(report: Report) -> dict[str, Any]:
    """Return the short form of the report that the job itself shows."""
    return {
        "params_before": report.parameters,
        "params_after": report.parameters_after,
        "params_nonzero": report.parameters_nonzero,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "achieved_sparsity": report.sparsity,
        "quality": _quality(report),
        **_recovery(report),
        "speed": {"prune_over_forward": report.timing.prune_over_forward, **_throughput(report)},
        "gates": [gate.model_dump() for gate in report.gates],
        "loads_in": report.verification.loads_in,
        "warnings": list(report.warnings),
    }


def _quality(report: Report) -> dict[str, dict[str, float | None]]:
    quality: dict[str, dict[str, float | None]] = {
        text.task: {"ppl_dense": text.dense, "ppl_pruned": text.pruned}
        for text in report.perplexity
    }
    for choice in report.accuracy:
        quality[choice.task] = {
            "acc_dense": choice.acc.dense,
            "acc_pruned": choice.acc.pruned,
            "acc_norm_dense": choice.acc_norm.dense,
            "acc_norm_pruned": choice.acc_norm.pruned,
        }
    for figure in report.harness:
        both = {
            f"{figure.metric}_dense": figure.dense,
            f"{figure.metric}_pruned": figure.pruned,
        }
        quality.setdefault(figure.task, {}).update(both)
    return quality


def _recovery(report: Report) -> dict[str, dict[str, float]]:
    """Return what fine-tuning gained, where there was any."""
    recovery = report.recovery
    if recovery is None:
        return {}
    losses = {"loss_before": recovery.loss_before, "loss_after": recovery.loss_after}
    return {"recovery": {**losses, "steps": recovery.steps}}


def _throughput(report: Report) -> dict[str, object]:
    """Return both models' speeds and their ratios; where these are in doubt, why, in their place."""
    speed = report.speed
    if speed is None:
        return {}
    if speed.doubts:
        return {"doubts": list(speed.doubts)}
    both = {"dense": speed.dense, "pruned": speed.pruned}
    figures: dict[str, object] = {
        f"{kind}_tokens_per_second_{which}": value
        for which, model in both.items()
        if model is not None
        for kind, value in (("prefill", model.prefill), ("decode", model.decode))
    }
    return figures | {f"{kind}_ratio": ratio.value for kind, ratio in speed.ratios.items()}


def missed_gates(report: Report) -> dict[str, Any] | None:
    """Return the error of a job whose pruned model misses its gates; None where it meets them all."""
    missed = [gate for gate in report.gates if not gate.passed]
    if not missed:
        return None
    misses = "; ".join(f"{gate.metric} is {gate.value:.4g}, {_bounds(gate)}" for gate in missed)
    return QualityGateFailed(
        f"{misses}. Report and checkpoint are kept.",
        suggestions=("prune less", "choose another method", "let the gate pass more"),
    ).payload()


def _bounds(gate: GateReport) -> str:
    bounds = {"at least": gate.min, "at most": gate.max}
    return "allowed: " + " and ".join(
        f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None
    )


def preset(report: Report, model: ModelRef) -> NewPreset | None:
    """Return what the job shall store for other jobs, None where it was not asked to."""
    asked, search = report.spec.search, report.search
    if asked is None or asked.save_as is None or search is None:
        return None
    coefficients = searched(report.spec, search, _origin(report, search, model))
    return NewPreset(asked.save_as, coefficients.model_dump(mode="json"))


def _origin(report: Report, search: SearchReport, model: ModelRef) -> str:
    name = f"{model.ref}@{model.revision}" if model.revision else model.ref
    name = name if len(name) <= MAX_MODEL else f"...{name[-MAX_MODEL:]}"
    pattern = report.spec.pattern
    amount = (
        f"{pattern.n}:{pattern.m} kept"
        if isinstance(pattern, NofM)
        else f"sparsity {report.spec.ratio:g}"
    )
    kept = ", RIA kept" if search.kept_ria else ""
    return f"{search.name} on {name}, {amount}, {search.windows} windows{kept}"
