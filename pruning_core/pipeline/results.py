"""The report of a finished run: the result measured, and everything that was learned on the way."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import Any

from pruning_core.checkpoints.origin import NOTE
from pruning_core.checkpoints.weight_files import INDEX
from pruning_core.evaluate.gates import gates
from pruning_core.export import checkpoint
from pruning_core.pipeline.evaluation import DenseFigures, Figures, evaluate_pruned
from pruning_core.pipeline.job_walk import Outcome
from pruning_core.pipeline.removed import removed
from pruning_core.pipeline.report_warnings import warnings_of
from pruning_core.pipeline.run import Run, versions
from pruning_core.prune.walk import Walk
from pruning_core.reporting import card, page
from pruning_core.reporting.headline import headline
from pruning_core.spec.base import digest
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.speed import Timing
from pruning_core.system import device as devices
from pruning_core.system import run_folder
from pruning_core.system.files import replacing
from pruning_core.system.progress import counting


def report(run: Run, fingerprint: str, dense: DenseFigures, outcome: Outcome) -> Report:
    """Measure the result, write `report.json`, its page and the model card, and return it; the work folder goes.

    Args:
        run: The run.
        fingerprint: Of all that decides the result's bytes.
        dense: What was measured of the dense model.
        outcome: What became of the run.
    """
    figures = evaluate_pruned(run, dense, outcome.decided.units)
    what_went = _what_went(run, outcome)
    run.tracker.begin("reporting", unit="byte")
    report = Report(
        fingerprint=fingerprint,
        finished_at=datetime.now(UTC),
        files=(),
        **_of_the_run(run),
        **what_went,
        **_of_the_figures(run, figures),
        **_of_the_work(run, outcome),
        warnings=(*warnings_of(run, outcome, figures.vocabulary),),
    )
    report = _with_files(run, report)
    with replacing(run.out / run_folder.PAGE) as temporary:
        temporary.write_text(page.html(report), encoding="utf-8")
    report = _timed(run, report)
    with replacing(run.out / run_folder.REPORT) as temporary:
        temporary.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    shutil.rmtree(run.work)
    return report


def _of_the_run(run: Run) -> dict[str, Any]:
    """Return what was asked for, and of which model and data."""
    return {
        "origin": run.provenance.origin,
        "started_at": run.tracker.started_at,
        "spec": run.spec,
        "spec_digest": digest(run.spec),
        "model_digest": run.model_digest,
        "architecture": run.facts.architecture,
        "parameters": run.facts.parameters,
        "bytes_before": run.facts.given_bytes,
        "source_format": "safetensors" if run.facts.gguf is None else "gguf",
        "calibration": run.windows.report(run.spec.calibration.seed) if run.windows else None,
        "data": run.data_used.reports(),
        "overlaps": run.data_used.overlaps(),
        "versions": versions(),
        "device": devices.describe(run.device),
        "left_behind": _left_behind(run),
    }


def _what_went(run: Run, outcome: Outcome) -> dict[str, Any]:
    """Return how much went."""
    plan, rounding = outcome.decided.units, outcome.rounding
    underflows = rounding.underflows if rounding else 0
    went = removed(run, plan, outcome.walk.ledger.blocks, underflows)
    return {
        "parameters_after": went.left,
        "parameters_nonzero": went.nonzero,
        "sparsity": went.share,
        "sparsity_model": 1 - went.nonzero / run.facts.parameters,
        "sizes": went.sizes,
        "removed_blocks": plan.layers if plan else (),
        "bytes_after": outcome.bytes,
    }


def _of_the_figures(run: Run, figures: Figures) -> dict[str, Any]:
    """Return what was measured, and the gates that it met or missed."""
    return {
        "vocabulary": figures.vocabulary,
        "perplexity": figures.texts,
        "accuracy": figures.questions,
        "harness": figures.harness,
        "gates": gates(run.spec.gates, figures.texts, figures.questions),
    }


def _of_the_work(run: Run, outcome: Outcome) -> dict[str, Any]:
    """Return what was decided and done, and what it took."""
    walk, examined = outcome.walk, outcome.examined
    return {
        "family": walk.model.family.name,
        "search": outcome.decided.search,
        "ratios": outcome.decided.ratios,
        "recovery": outcome.recovery,
        "speed": examined.speed,
        "blocks": tuple(walk.ledger.blocks),
        "resumed_blocks": walk.ledger.resumed,
        "timing": Timing(
            phases=run.tracker.seconds, prune_over_forward=_prune_over_forward(run, walk)
        ),
        "peak_memory_bytes": devices.peak_memory(run.device),
        "verification": examined.verification,
        "rounding": outcome.rounding,
        "gguf": outcome.gguf,
    }


def _with_files(run: Run, report: Report) -> Report:
    """Write the model card; return the report with the manifest of the checkpoint and what follows from all of it."""
    base_model = run.provenance.base_model
    licence = card.write(
        report, base_model=base_model, source=run.source, checkpoint=run.checkpoint
    )
    size = sum(path.stat().st_size for path in run.checkpoint.rglob("*") if path.is_file())
    files = checkpoint.manifest(
        run.checkpoint, counting(lambda read: run.tracker.part(read, size, "byte"))
    )
    further = {"files": files, "licence": licence, "summary": headline(report)}
    return _timed(run, report.model_copy(update=further))


def _left_behind(run: Run) -> tuple[str, ...]:
    """Return what of the source's folder was neither read as weights nor carried over."""
    kept = {path.relative_to(run.checkpoint).as_posix() for path in run.checkpoint.rglob("*")}
    read = {INDEX, NOTE, *run.facts.files.values()}
    return tuple(name for name in run.provenance.offered if name not in kept | read)


def _timed(run: Run, report: Report) -> Report:
    """Return the report with the time that all phases took until now."""
    run.tracker.end()
    timing = report.timing.model_copy(update={"phases": dict(run.tracker.seconds)})
    return report.model_copy(update={"timing": timing, "finished_at": datetime.now(UTC)})


def _prune_over_forward(run: Run, walk: Walk) -> float | None:
    """Compare the walk with its own plain forward passes, scaled to all blocks; None after a resume."""
    if not walk.blocks_forwarded or walk.ledger.resumed:
        return None
    forward = walk.forward_seconds / walk.blocks_forwarded * run.facts.blocks
    return round(sum(block.seconds for block in walk.ledger.blocks) / forward, 3)
