"""The report of a finished run: both models measured, and everything that was learned on the way."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pruning_core.checkpoints.config import omitted
from pruning_core.checkpoints.facts import inspect
from pruning_core.checkpoints.origin import NOTE
from pruning_core.checkpoints.weight_files import INDEX
from pruning_core.decide.token_counts import coverage
from pruning_core.evaluate import lm_eval, verify
from pruning_core.evaluate.compare import accuracies, gates, measure, perplexities, renumbered
from pruning_core.export import checkpoint
from pruning_core.model.streamed import StreamedModel
from pruning_core.model.tensors import new_zeros
from pruning_core.pipeline.run import Run, versions
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.walk import Walk
from pruning_core.reporting import card, page
from pruning_core.reporting.headline import headline
from pruning_core.spec.base import digest
from pruning_core.spec.patterns import NofM
from pruning_core.spec.report import (
    Accuracy,
    BlockReport,
    HarnessMetric,
    Perplexity,
    Report,
    SizeReport,
    SpeedReport,
    Timing,
    VocabularyCoverage,
)
from pruning_core.structure.further import removal_notes
from pruning_core.structure.sizes import NAMES, layout_of
from pruning_core.system import device as devices
from pruning_core.system.files import replacing
from pruning_core.system.progress import counting
from pruning_core.text.windows import Texts
from pruning_core.tokenizers.load import load_tokenizer

MASKS_ONLY = (
    "Zeros alone make a dense file no smaller and a forward pass no faster: element-wise masks are for study, "
    "or for runtimes that exploit them. Structured methods shrink the model."
)
LEAST_KEPT = 0.99
"""Share of a held-out text's tokens that should stay: one that went costs some 5 to 10 nats, since the model seldom saw
the pieces in its place, so that 1 % of them raises perplexity by 5 to 10 %."""
ZEROED_UNITS = "Units were zeroed and not removed: the files are as large and as slow as before. Use the pattern's `mode: remove`."
OMITTED = (
    "config.json of the result leaves out {}: they name code that is not carried over, or say how the source's weights "
    "are stored."
)
PERMUTED_MASK = (
    "The zeros are n:m only in the channel order of channel_order.safetensors: for any kernel these files are an "
    "unstructured sparse model. Use `permute: fold` for files that are n:m as stored."
)


def evaluate_dense(run: Run) -> None:
    """Measure the dense model, where that is asked for."""
    if not run.spec.evaluation.baseline:
        return
    if run.evaluation_set.tokens:
        model = StreamedModel(run.source, run.facts, run.device)
        run.dense = measure(model, run.evaluation_set, run.tracker, "evaluating_dense")
    if run.spec.evaluation.harness == "lm_eval":
        run.tracker.begin("evaluating", unit="request", key="evaluating_dense")
        run.harness_dense = _harness(run, run.source)


def _harness(run: Run, folder: Path) -> list[lm_eval.Row]:
    return lm_eval.evaluate(
        folder,
        run.spec.evaluation_tasks,
        limit=run.spec.evaluation.items,
        device=run.device,
        include=run.sources.tasks_dir,
        on_progress=run.tracker.part,
        alive=run.tracker.waiting,
    )


def report(
    run: Run, fingerprint: str, walk: Walk, examined: verify.Examined, total_bytes: int
) -> Report:
    """Measure the result, write `report.json`, its page and the model card, and return it; the work folder goes.

    Args:
        run: The run.
        fingerprint: Of all that decides the result's bytes.
        walk: What was done to each block.
        examined: What a fresh process made of the checkpoint.
        total_bytes: Of the checkpoint's tensors.
    """
    found = _evaluate_pruned(run)
    blocks = tuple(walk.ledger.blocks)
    gone = removed(run, blocks)
    run.tracker.begin("reporting", unit="byte")
    report = Report(
        origin=run.origin,
        started_at=run.tracker.started_at,
        finished_at=datetime.now(UTC),
        spec=run.spec,
        spec_digest=digest(run.spec),
        fingerprint=fingerprint,
        model_digest=run.model_digest,
        family=walk.model.family.name,
        architecture=run.facts.architecture,
        parameters=run.facts.parameters,
        parameters_after=gone.left,
        parameters_nonzero=gone.nonzero,
        bytes_before=run.facts.given_bytes,
        bytes_after=total_bytes,
        source_format="safetensors" if run.facts.gguf is None else "gguf",
        sparsity=gone.share,
        sparsity_model=1 - gone.nonzero / run.facts.parameters,
        sizes=gone.sizes,
        vocabulary=found.vocabulary,
        removed_blocks=run.units.layers if run.units else (),
        calibration=run.windows.report(run.spec.calibration.seed) if run.windows else None,
        search=run.search,
        ratios=run.ratios,
        recovery=run.recovery,
        perplexity=found.texts,
        accuracy=found.questions,
        harness=found.harness,
        speed=examined.speed,
        gates=gates(run.spec.gates, found.texts, found.questions),
        data=run.sources.reports(),
        overlaps=run.sources.overlaps(),
        blocks=blocks,
        resumed_blocks=walk.ledger.resumed,
        timing=Timing(
            phases=run.tracker.seconds, prune_over_forward=_prune_over_forward(run, walk)
        ),
        peak_memory_bytes=devices.peak_memory(run.device),
        verification=examined.verification,
        rounding=run.rounding,
        gguf=run.gguf,
        files=(),
        versions=versions(),
        device=devices.describe(run.device),
        left_behind=_left_behind(run),
        warnings=(*_warnings(run, examined.speed, blocks), *_uncovered(run, found.vocabulary)),
    )
    licence = card.write(
        report, base_model=run.base_model, source=run.source, checkpoint=run.checkpoint
    )
    size = sum(path.stat().st_size for path in run.checkpoint.rglob("*") if path.is_file())
    files = checkpoint.manifest(
        run.checkpoint, counting(lambda read: run.tracker.part(read, size, "byte"))
    )
    settled = {"files": files, "licence": licence, "summary": headline(report)}
    report = _timed(run, report.model_copy(update=settled))
    with replacing(run.out / "report.html") as temporary:
        temporary.write_text(page.html(report), encoding="utf-8")
    report = _timed(run, report)
    with replacing(run.out / "report.json") as temporary:
        temporary.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    shutil.rmtree(run.work)
    return report


def _left_behind(run: Run) -> tuple[str, ...]:
    """Return what of the source's folder was neither read as weights nor carried over."""
    kept = {path.relative_to(run.checkpoint).as_posix() for path in run.checkpoint.rglob("*")}
    read = {INDEX, NOTE, *run.facts.files.values()}
    return tuple(name for name in run.offered if name not in kept | read)


def _timed(run: Run, report: Report) -> Report:
    """Return the report with the time that all phases took until now."""
    run.tracker.end()
    timing = report.timing.model_copy(update={"phases": dict(run.tracker.seconds)})
    return report.model_copy(update={"timing": timing, "finished_at": datetime.now(UTC)})


@dataclass(frozen=True)
class Removed:
    """How much went.

    Attributes:
        share: Of the weights of the pruned matrices, or of the whole model where units went.
        left: Parameters of the result.
        nonzero: Those that are not zero.
        sizes: What was cut.
    """

    share: float
    left: int
    nonzero: int
    sizes: tuple[SizeReport, ...] = ()


def removed(run: Run, blocks: Sequence[BlockReport]) -> Removed:
    """Return how much went."""
    whole = run.facts.parameters
    if run.units is None:
        matrices = [matrix for block in blocks for matrix in block.matrices]
        weights = sum(matrix.shape[0] * matrix.shape[1] for matrix in matrices)
        zeros = sum(matrix.zeros for matrix in matrices)
        rounded = run.rounding.underflows if run.rounding else 0
        return Removed(zeros / weights, whole, whole - zeros - rounded)
    left = inspect(run.checkpoint).parameters
    zeros = (
        0 if run.units.removing else new_zeros(run.source, run.checkpoint, alive=run.tracker.alive)
    )
    return Removed((whole - left + zeros) / whole, left, left - zeros, _sizes(run.units))


def _sizes(plan: UnitPlan) -> tuple[SizeReport, ...]:
    layout = plan.layout
    whole = layout.parameters(layout.sizes)
    return tuple(
        SizeReport(
            kind=kind,
            before=layout.sizes.of(kind),
            after=plan.sizes.of(kind),
            parameters_removed=whole
            - layout.parameters(replace(layout.sizes, **{kind: plan.sizes.of(kind)})),
        )
        for kind in NAMES
        if plan.sizes.of(kind) != layout.sizes.of(kind)
    )


@dataclass(frozen=True)
class Evaluated:
    """What was found of the pruned model."""

    texts: tuple[Perplexity, ...] = ()
    questions: tuple[Accuracy, ...] = ()
    harness: tuple[HarnessMetric, ...] = ()
    vocabulary: tuple[VocabularyCoverage, ...] = ()


def _evaluate_pruned(run: Run) -> Evaluated:
    """Measure the files that the user gets, read back from disk."""
    found = _measured(run) if run.evaluation_set.tokens else Evaluated()
    if run.spec.evaluation.harness == "lm_eval":
        run.tracker.begin("evaluating", unit="request", key="evaluating_pruned")
        rows = lm_eval.metrics(run.harness_dense, _harness(run, run.checkpoint))
        return replace(found, harness=rows)
    return found


def _measured(run: Run) -> Evaluated:
    by, other = run.evaluation_set, None
    facts = inspect(run.checkpoint)
    if run.units is not None and run.units.renumbers:
        own = Texts(run.checkpoint, facts, run.sources)
        other = renumbered(by, run.spec, load_tokenizer(run.source), own)
    model = StreamedModel(run.checkpoint, facts, run.device)
    pruned = measure(model, other or by, run.tracker, "evaluating_pruned")
    kept = run.units.vocabulary if run.units else None
    return Evaluated(
        perplexities(by, run.dense, pruned, other),
        accuracies(by, run.dense, pruned),
        vocabulary=coverage(kept, run.facts.vocab_size, by, other) if kept else (),
    )


def _prune_over_forward(run: Run, walk: Walk) -> float | None:
    """Compare the walk with its own plain forward passes, scaled to all blocks; None after a resume."""
    if not walk.blocks_forwarded or walk.ledger.resumed:
        return None
    forward = walk.forward_seconds / walk.blocks_forwarded * run.facts.blocks
    return round(sum(block.seconds for block in walk.ledger.blocks) / forward, 3)


def _uncovered(run: Run, found: Iterable[VocabularyCoverage]) -> Iterator[str]:
    for one in found:
        if one.kept < LEAST_KEPT:
            yield (
                f"{1 - one.kept:.1%} of the tokens of {run.sources.shown(one.task)}'s evaluation text are gone from the "
                f"vocabulary and are spelled with smaller ones (more than {1 - LEAST_KEPT:.0%}): perplexity suffers. "
                "Calibrate on more text of the domain, or ask for less to go."
            )


def _warnings(
    run: Run, speed: SpeedReport | None, blocks: tuple[BlockReport, ...]
) -> Iterator[str]:
    if run.units is None:
        yield MASKS_ONLY
    else:
        yield from run.units.warnings
        if not run.units.removing:
            yield ZEROED_UNITS
    yield from removal_notes(layout_of(run.facts).further, run.units.cut if run.units else ())
    left_out = omitted(run.source)
    if left_out:
        yield OMITTED.format(", ".join(left_out))
    if isinstance(run.spec.pattern, NofM) and run.spec.pattern.permute == "mask":
        yield PERMUTED_MASK
    if run.rounding is not None and run.rounding.underflows:
        yield (
            f"{run.rounding.underflows:,} weights that were not zero are too small for {run.rounding.dtype} and became "
            "zero; `output.dtype: bfloat16` reaches as far down as float32."
        )
    if run.search is not None and run.search.kept_ria:
        yield "The search found nothing better than RIA on its text; RIA's coefficients were used."
    asked = run.spec.evaluation
    if asked.tasks != () and asked.harness == "secateur" and not run.evaluation_set.tokens:
        yield "No quality was measured: the calibration tasks have nothing to evaluate. Name evaluation.tasks."
    yield from run.sources.warnings
    for found in run.sources.overlaps():
        evaluating, calibrating = map(
            run.sources.shown, (found.evaluation_task, found.calibration_task)
        )
        yield (
            f"{found.items} items of the evaluation split of {evaluating} are in the calibration split of "
            f"{calibrating} too: its figures may be too good."
        )
    if speed is not None and speed.doubts:
        yield f"Speed was not reliably measured: {'; '.join(speed.doubts)}."
    yield from _together(warning for block in blocks for warning in block.warnings)


def _together(warnings: Iterable[str]) -> Iterator[str]:
    """Yield what is said of several matrices once, naming the first."""
    places: dict[str, list[str]] = {}
    for warning in warnings:
        place, _, said = warning.partition(": ")
        places.setdefault(said, []).append(place)
    for said, where in places.items():
        others = f" and {len(where) - 1:,} more" if len(where) > 1 else ""
        yield f"{where[0]}{others}: {said}"
