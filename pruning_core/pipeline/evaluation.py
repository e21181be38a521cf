"""Both models measured by what the job names: the dense one before the walk, the files that the user gets after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pruning_core.checkpoints.facts import inspect
from pruning_core.decide.token_counts import coverage
from pruning_core.evaluate import lm_eval
from pruning_core.evaluate.compare_choices import accuracies
from pruning_core.evaluate.compare_texts import perplexities
from pruning_core.evaluate.evaluation_set import renumbered
from pruning_core.evaluate.measure import Measured, measure
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.run import Run
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.report_parts.quality import Accuracy, HarnessMetric, Perplexity
from pruning_core.spec.report_parts.removal import VocabularyCoverage
from pruning_core.text.task_reader import TaskReader
from pruning_core.tokenizers.load import load_tokenizer


@dataclass(frozen=True)
class DenseFigures:
    """What was measured of the dense model.

    Attributes:
        measured: By our own measures; None where nothing was.
        rows: By lm-evaluation-harness; None where it was not asked for.
    """

    measured: Measured | None = None
    rows: list[lm_eval.HarnessFigure] | None = None


@dataclass(frozen=True)
class Figures:
    """What was measured of the pruned model, beside the dense one."""

    texts: tuple[Perplexity, ...] = ()
    questions: tuple[Accuracy, ...] = ()
    harness: tuple[HarnessMetric, ...] = ()
    vocabulary: tuple[VocabularyCoverage, ...] = ()


def evaluate_dense(run: Run) -> DenseFigures:
    """Measure the dense model, where that is asked for."""
    if not run.spec.evaluation.baseline:
        return DenseFigures()
    measured = rows = None
    if run.evaluation_set.tokens:
        model = StreamedModel(run.source, run.facts, run.device)
        measured = measure(model, run.evaluation_set, run.tracker, "evaluating_dense")
    if run.spec.evaluation.harness == "lm_eval":
        run.tracker.begin("evaluating", unit="request", key="evaluating_dense")
        rows = _harness(run, run.source)
    return DenseFigures(measured, rows)


def evaluate_pruned(run: Run, dense: DenseFigures, plan: UnitPlan | None) -> Figures:
    """Measure the files that the user gets, read back from disk.

    Args:
        run: The run.
        dense: What was measured of the dense model.
        plan: Which units went, if any.
    """
    figures = _measured(run, dense, plan) if run.evaluation_set.tokens else Figures()
    if run.spec.evaluation.harness == "lm_eval":
        run.tracker.begin("evaluating", unit="request", key="evaluating_pruned")
        rows = lm_eval.metrics(dense.rows, _harness(run, run.checkpoint))
        return replace(figures, harness=rows)
    return figures


def _measured(run: Run, dense: DenseFigures, plan: UnitPlan | None) -> Figures:
    by, other = run.evaluation_set, None
    facts = inspect(run.checkpoint)
    if plan is not None and plan.renumbers:
        own = TaskReader(run.checkpoint, facts, run.data_used)
        other = renumbered(by, run.spec, load_tokenizer(run.source), own)
    model = StreamedModel(run.checkpoint, facts, run.device)
    pruned = measure(model, other or by, run.tracker, "evaluating_pruned")
    kept = plan.vocabulary if plan is not None else None
    return Figures(
        perplexities(by, dense.measured, pruned, other),
        accuracies(by, dense.measured, pruned),
        vocabulary=coverage(kept, run.facts.vocab_size, by, other) if kept else (),
    )


def _harness(run: Run, folder: Path) -> list[lm_eval.HarnessFigure]:
    return lm_eval.evaluate(
        folder,
        run.spec.evaluation_tasks,
        limit=run.spec.evaluation.items,
        device=run.device,
        include=run.data_used.tasks_dir,
        on_progress=run.tracker.part,
        alive=run.tracker.waiting,
    )
