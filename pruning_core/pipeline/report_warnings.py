"""What the user must know of a finished run, in the order in which the report has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pruning_core.checkpoints.config import omitted
from pruning_core.pipeline.job_walk import Outcome
from pruning_core.pipeline.run import Run
from pruning_core.spec.patterns import NofM
from pruning_core.spec.report_parts.removal import VocabularyCoverage
from pruning_core.structure.further import removal_notes
from pruning_core.structure.layout import layout_of

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


def warnings_of(
    run: Run, outcome: Outcome, coverage: Iterable[VocabularyCoverage]
) -> Iterator[str]:
    """Yield what the user must know of a finished run.

    Args:
        run: The run.
        outcome: What became of it.
        coverage: What share of each evaluated text's tokens stayed in the vocabulary.
    """
    yield from _of_what_went(run, outcome)
    yield from _of_the_files(run, outcome)
    if outcome.decided.search is not None and outcome.decided.search.kept_ria:
        yield "The search found nothing better than RIA on its text; RIA's coefficients were used."
    yield from _of_the_data(run)
    speed = outcome.examined.speed
    if speed is not None and speed.doubts:
        yield f"Speed was not reliably measured: {'; '.join(speed.doubts)}."
    blocks = outcome.walk.ledger.blocks
    yield from _together(warning for block in blocks for warning in block.warnings)
    yield from uncovered_text(run, coverage)


def _of_what_went(run: Run, outcome: Outcome) -> Iterator[str]:
    plan = outcome.decided.units
    if plan is None:
        yield MASKS_ONLY
    else:
        yield from plan.warnings
        if not plan.removing:
            yield ZEROED_UNITS
    yield from removal_notes(layout_of(run.facts).further, plan.cut if plan else ())


def _of_the_files(run: Run, outcome: Outcome) -> Iterator[str]:
    left_out = omitted(run.source)
    if left_out:
        yield OMITTED.format(", ".join(left_out))
    if isinstance(run.spec.pattern, NofM) and run.spec.pattern.permute == "mask":
        yield PERMUTED_MASK
    rounding = outcome.rounding
    if rounding is not None and rounding.underflows:
        yield (
            f"{rounding.underflows:,} weights that were not zero are too small for {rounding.dtype} and became "
            "zero; `output.dtype: bfloat16` reaches as far down as float32."
        )


def _of_the_data(run: Run) -> Iterator[str]:
    asked = run.spec.evaluation
    if asked.tasks != () and asked.harness == "secateur" and not run.evaluation_set.tokens:
        yield "No quality was measured: the calibration tasks have nothing to evaluate. Name evaluation.tasks."
    yield from run.data_used.warnings
    for overlap in run.data_used.overlaps():
        evaluating, calibrating = map(
            run.data_used.shown, (overlap.evaluation_task, overlap.calibration_task)
        )
        yield (
            f"{overlap.items} items of the evaluation split of {evaluating} are in the calibration split of "
            f"{calibrating} too: its figures may be too good."
        )


def uncovered_text(run: Run, coverage: Iterable[VocabularyCoverage]) -> Iterator[str]:
    """Yield a warning for every evaluated text whose tokens the vocabulary does not cover."""
    for text in coverage:
        if text.kept < LEAST_KEPT:
            yield (
                f"{1 - text.kept:.1%} of the tokens of {run.data_used.shown(text.task)}'s evaluation text are gone from the "
                f"vocabulary and are spelled with smaller ones (more than {1 - LEAST_KEPT:.0%}): perplexity suffers. "
                "Calibrate on more text of the domain, or ask for less to go."
            )


def _together(warnings: Iterable[str]) -> Iterator[str]:
    """Yield what is said of several matrices once, naming the first."""
    places: dict[str, list[str]] = {}
    for warning in warnings:
        place, _, said = warning.partition(": ")
        places.setdefault(said, []).append(place)
    for said, where in places.items():
        others = f" and {len(where) - 1:,} more" if len(where) > 1 else ""
        yield f"{where[0]}{others}: {said}"
