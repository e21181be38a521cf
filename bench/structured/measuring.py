"""One model, what calibrates it and what it is measured by."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from bench.model import gemma3, smollm2
from pruning_core import settings
from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.errors import SizeUnreachable, UnitsUnsupported
from pruning_core.evaluate.compare_choices import accuracies
from pruning_core.evaluate.compare_texts import perplexities
from pruning_core.evaluate.evaluation_set import EvaluationSet
from pruning_core.evaluate.measure import Measured
from pruning_core.evaluate.multiple_choice import score
from pruning_core.evaluate.perplexity import token_losses
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.phases import prune
from pruning_core.spec.evaluation import Evaluation
from pruning_core.spec.patterns import Units
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.quality import Accuracy
from pruning_core.system import device as devices
from pruning_core.text.evaluation_text import evaluation_questions, evaluation_windows
from pruning_core.text.task_reader import TaskReader

MODELS: dict[str, Callable[[], Path]] = {"smollm2": smollm2, "gemma3": gemma3}
TASKS = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
SAMPLE_TOKENS = 128
TEXT = "wikitext2"
TEXT_TOKENS = 1024
SEED = 42
RESIDUAL: dict[str, Units] = {"smollm2": Units(multiple_of=1), "gemma3": Units()}
"""How widths are rounded: SmolLM2's nine heads must divide its width, so that multiples of 8 would be multiples of 72."""
Prepare = Callable[[int, nn.Module], None]


class Bench:
    """One model, the samples that calibrate it and the evaluation set that it is measured by."""

    def __init__(self, name: str, *, samples: int, items: int, windows: int) -> None:
        self.name = name
        self.folder = MODELS[name]().resolve()
        self.facts = inspect(self.folder)
        self.samples = samples
        data_used = DataUsed(settings.tasks_dir())
        self.reader = TaskReader(self.folder, self.facts, data_used)
        text = Evaluation(windows=windows, seq_len=TEXT_TOKENS)
        self.by = EvaluationSet(
            {TEXT: evaluation_windows(self.reader, TEXT, text)},
            {
                task: evaluation_questions(self.reader, task, Evaluation(items=items))
                for task in TASKS
            },
        )
        self.conditions = (
            f"{len(TASKS)} tasks x {samples} samples x {SAMPLE_TOKENS}"
            f" / {items} items, {windows} x {TEXT_TOKENS}"
        )

    def calibration(self, *, answers: bool = True) -> dict[str, Any]:
        """Return the samples that a specification asks for."""
        return {
            "tasks": [{"name": task, "samples": self.samples} for task in TASKS],
            "layout": "rows",
            "seq_len": SAMPLE_TOKENS,
            "seed": SEED,
            "answers": answers,
        }

    def open(self, folder: Path | None = None) -> StreamedModel:
        """Return a model of this kind, by default the dense one."""
        folder = folder or self.folder
        return StreamedModel(folder, inspect(folder), devices.pick())

    def figures(
        self, model: StreamedModel, prepare: Prepare = lambda _index, _block: None
    ) -> dict[str, Any]:
        """Measure a model as a report does; `prepare` may change each block before it is used."""
        measured = Measured(
            {
                task: token_losses(model, windows.groups, prepare=prepare)
                for task, windows in self.by.texts.items()
            },
            {
                task: score(model, asked, prepare=prepare)
                for task, asked in self.by.questions.items()
            },
        )
        (text,) = perplexities(self.by, None, measured)
        return {"perplexity": round(text.pruned, 3)} | _accuracy(
            accuracies(self.by, None, measured)
        )

    def cell(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Prune as a job does, measure the checkpoint that it would hand out, and say what it cost."""
        extra = {"calibration": self.calibration(), "evaluation": {"tasks": []}}
        spec = PruneSpec.model_validate(asked | extra)
        with tempfile.TemporaryDirectory() as out:
            cpu, wall = time.process_time(), time.perf_counter()
            try:
                report = prune(self.folder, spec, Path(out))
            except (SizeUnreachable, UnitsUnsupported) as error:
                return {"refused": error.message}
            cost = {
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "wall_seconds": round(time.perf_counter() - wall, 1),
            }
            checkpoint = Path(out) / "checkpoint"
            figures = self.figures(self.open(checkpoint))
            return figures | cost | _reported(report) | {"config": self._changed(checkpoint)}

    def _changed(self, checkpoint: Path) -> dict[str, Any]:
        """Return what the result's config.json has other than the dense model's."""
        config = json.loads((checkpoint / "config.json").read_bytes())
        return {key: value for key, value in config.items() if self.facts.config.get(key) != value}

    def dense(self) -> dict[str, Any]:
        """Measure the dense model."""
        size = {"parameters": self.facts.parameters, "bytes": self.facts.bytes}
        return self.figures(self.open()) | size


def _accuracy(measured: Sequence[Accuracy]) -> dict[str, Any]:
    """Return shares per task and their mean, with the interval of a mean of independent shares."""
    cells: dict[str, Any] = {}
    for name in ("acc", "acc_norm"):
        shares = {accuracy.task: getattr(accuracy, name).pruned for accuracy in measured}
        cells[name] = {task: round(share, 4) for task, share in shares.items()}
        variances = [
            share * (1 - share) / accuracy.items
            for accuracy, share in zip(measured, shares.values(), strict=True)
        ]
        cells[f"mean_{name}"] = round(statistics.mean(shares.values()), 4)
        cells[f"mean_{name}_margin"] = round(1.96 * sum(variances) ** 0.5 / len(measured), 4)
    return cells


def _reported(report: Report) -> dict[str, Any]:
    units = [unit for block in report.blocks for unit in block.units]
    return {
        "parameters": report.parameters_after,
        "bytes": report.bytes_after,
        "share": round(report.sparsity, 4),
        "phases": {phase: round(took, 1) for phase, took in report.timing.phases.items()},
        "shape": {size.kind: size.after for size in report.sizes},
        "error": _mean([unit.error for unit in units]),
        "error_before_refit": _mean([unit.error_before_refit for unit in units]),
        "logit_difference": report.verification.max_logit_difference,
        "warnings": list(report.warnings),
    }


def _mean(figures: Sequence[float | None]) -> float | None:
    given = [figure for figure in figures if figure is not None]
    return round(statistics.mean(given), 4) if given else None
