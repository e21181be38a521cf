"""Methods that remove whole units: quality, speed and cost of each, and what settles how DIET's paper is to be read.

Figures are kept cell by cell in docs/benchmarks.json; a second run does what is missing, and several may write at once.
All tasks are those of the folder that SECATEUR_TASKS_DIR names.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from bench.model import gemma3, smollm2
from bench.page import RESULTS, shape_key, write
from pruning_core import settings
from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.errors import PruningError, SizeUnreachable, UnitsUnsupported
from pruning_core.evaluate.compare_choices import accuracies
from pruning_core.evaluate.compare_texts import perplexities
from pruning_core.evaluate.evaluation_set import EvaluationSet
from pruning_core.evaluate.measure import Measured
from pruning_core.evaluate.multiple_choice import score
from pruning_core.evaluate.perplexity import token_losses
from pruning_core.evaluate.throughput import throughput
from pruning_core.model.matrix import input_groups
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.phases import prune
from pruning_core.pipeline.run import Provenance, prepare
from pruning_core.pipeline.unit_walk import UnitWalk
from pruning_core.spec.calibration import Calibration
from pruning_core.spec.evaluation import Evaluation
from pruning_core.spec.patterns import Units
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Origin, Report
from pruning_core.spec.report_parts.quality import Accuracy
from pruning_core.spec.unit_methods import Diet
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.layout import layout_of
from pruning_core.structure.target import Target
from pruning_core.system import device as devices
from pruning_core.system.progress import Silent, Tracker
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.text.evaluation_text import evaluation_questions, evaluation_windows
from pruning_core.text.task_reader import TaskReader
from pruning_core.unit_methods import diet
from pruning_core.unit_methods.diet import profiles
from pruning_core.units.unit_groups import zero_residual

MODELS: dict[str, Callable[[], Path]] = {"smollm2": smollm2, "gemma3": gemma3}
TASKS = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
SAMPLE_TOKENS = 128
TEXT = "wikitext2"
TEXT_TOKENS = 1024
SEED = 42
RESIDUAL: dict[str, Units] = {"smollm2": Units(multiple_of=1), "gemma3": Units()}
"""How widths are rounded: SmolLM2's nine heads must divide its width, so that multiples of 8 would be multiples of 72."""
ROWS: dict[str, dict[str, Any]] = {
    "random_units": {"method": "random_units"},
    "layer_drop": {"method": "layer_drop"},
    "wanda_sp": {"method": "wanda_sp"},
    "wanda_sp + refit": {"method": "wanda_sp", "refinement": ["refit"]},
    "flap": {"method": "flap"},
    "flap + refit": {"method": "flap", "refinement": ["refit"]},
    "goa": {"method": "goa"},
    "goa, reconstruct": {"method": {"name": "goa", "reconstruct": True}},
    "goa + refit": {"method": "goa", "refinement": ["refit"]},
    "diet": {"method": "diet"},
}
PROMPT_TOKENS = 512
NEW_TOKENS = 32
COST_TOKENS = 512
COST_RATIO = 0.2
COSTS: dict[str, dict[str, Any]] = {
    name: ROWS[name]
    for name in ("wanda_sp", "wanda_sp + refit", "flap", "flap + refit", "goa", "goa, reconstruct")
}
PHASES = ("prefill", "decode")
Prepare = Callable[[int, nn.Module], None]


@contextmanager
def opened(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the results, and write back what became of them; nobody else does so meanwhile."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = json.loads(file.read() or "{}")
        yield content
        text = json.dumps(content, indent=1) + "\n"
        file.seek(0)
        file.truncate()
        file.write(text)


def read(path: Path) -> dict[str, Any]:
    """Return the results as they are now."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        content: dict[str, Any] = json.loads(file.read() or "{}")
        return content


@dataclass(frozen=True)
class Kept:
    """The cells of one table, one model and one set of conditions."""

    path: Path
    table: str
    model: str
    conditions: str

    def __contains__(self, key: str) -> bool:
        return key in self._cells(read(self.path))

    def keep(self, key: str, found: dict[str, Any]) -> None:
        """Store a cell."""
        with opened(self.path) as results:
            self._cells(results)[key] = found
        print(self.model, "|", key, json.dumps(found), flush=True)

    def _cells(self, results: dict[str, Any]) -> dict[str, Any]:
        cells: dict[str, Any] = (
            results.setdefault(self.table, {})
            .setdefault(self.model, {})
            .setdefault(self.conditions, {})
        )
        return cells


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
                task: token_losses(model, one.groups, prepare=prepare)
                for task, one in self.by.texts.items()
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
            found = self.figures(self.open(checkpoint))
            return found | cost | _reported(report) | {"config": self._changed(checkpoint)}

    def _changed(self, checkpoint: Path) -> dict[str, Any]:
        """Return what the result's config.json has other than the dense model's."""
        config = json.loads((checkpoint / "config.json").read_bytes())
        return {key: value for key, value in config.items() if self.facts.config.get(key) != value}

    def dense(self) -> dict[str, Any]:
        """Measure the dense model."""
        size = {"parameters": self.facts.parameters, "bytes": self.facts.bytes}
        return self.figures(self.open()) | size


def _accuracy(found: Sequence[Accuracy]) -> dict[str, Any]:
    """Return shares per task and their mean, with the interval of a mean of independent shares."""
    cells: dict[str, Any] = {}
    for name in ("acc", "acc_norm"):
        shares = {one.task: getattr(one, name).pruned for one in found}
        cells[name] = {task: round(share, 4) for task, share in shares.items()}
        variances = [
            share * (1 - share) / one.items
            for one, share in zip(found, shares.values(), strict=True)
        ]
        cells[f"mean_{name}"] = round(statistics.mean(shares.values()), 4)
        cells[f"mean_{name}_margin"] = round(1.96 * sum(variances) ** 0.5 / len(found), 4)
    return cells


def _reported(report: Report) -> dict[str, Any]:
    units = [unit for block in report.blocks for unit in block.units]
    return {
        "parameters": report.parameters_after,
        "bytes": report.bytes_after,
        "share": round(report.sparsity, 4),
        "phases": {phase: round(took, 1) for phase, took in report.timing.phases.items()},
        "shape": {one.kind: one.after for one in report.sizes},
        "error": _mean([one.error for one in units]),
        "error_before_refit": _mean([one.error_before_refit for one in units]),
        "logit_difference": report.verification.max_logit_difference,
        "warnings": list(report.warnings),
    }


def _mean(figures: Sequence[float | None]) -> float | None:
    given = [one for one in figures if one is not None]
    return round(statistics.mean(given), 4) if given else None


def amount(ratio: float) -> str:
    """Return a share as keys of cells name it."""
    return f"{100 * ratio:g} %"


def fill(kept: Kept, key: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure what is missing; what breaks is said and left out, so that the others are still measured."""
    if key in kept:
        return
    try:
        kept.keep(key, measure())
    except PruningError as error:
        print(kept.model, "|", key, "failed:", error.code, error.message, flush=True)


def table(chosen: argparse.Namespace) -> None:
    """Measure every method at every ratio."""
    bench = Bench(chosen.model, samples=chosen.samples, items=chosen.items, windows=chosen.windows)
    kept = Kept(chosen.results, "structured", bench.name, bench.conditions)
    fill(kept, "dense", bench.dense)
    for ratio in chosen.ratios:
        for row, asked in ROWS.items():
            if chosen.only in row:
                spec = asked | {"sparsity": ratio}
                if row.startswith("diet"):
                    spec |= {"pattern": RESIDUAL[bench.name].model_dump()}
                fill(kept, f"{row} | {amount(ratio)}", lambda spec=spec: bench.cell(spec))


BASE = {"layer_reduce": "mean"}
"""The reading of DIET's paper that others differ from in one thing."""


@dataclass(frozen=True)
class Reading:
    """One way to read DIET's paper: which texts, which parameters, whose votes."""

    params: Diet = field(default_factory=lambda: Diet.model_validate(BASE))
    answers: bool = True
    tasks: tuple[str, ...] = TASKS

    @property
    def profile(self) -> tuple[bool, str, str]:
        """What its pass over the text depends on."""
        return self.answers, self.params.bos, self.params.statistic


READINGS = {
    "base": Reading(),
    **{
        f"{name} {value}": Reading(Diet.model_validate(BASE | {name: value}))
        for name, value in (
            ("layer_norm", "none"),
            ("layer_reduce", "max"),
            ("merge", "vote_strict"),
            ("merge", "mean_score"),
            ("bos", "keep"),
            ("statistic", "rms"),
        )
    },
    "prompt alone": Reading(answers=False),
    **{f"{task} alone": Reading(tasks=(task,)) for task in TASKS},
}
"""Measured with zeros in memory."""
RESIDUAL_JOBS: dict[str, dict[str, Any]] = {
    "removed": {"method": {"name": "diet"} | BASE},
    "removed, rescale off": {"method": {"name": "diet", "rescale": False} | BASE},
    "random dimensions": {"method": {"name": "random_units", "units": ["hidden"]}},
}
OTHER_JOBS: dict[str, dict[str, Any]] = {
    "removed, granularity units": {"method": {"name": "diet", "granularity": "units"}},
    "granularity per_layer": {
        "method": {"name": "diet", "granularity": "per_layer"} | BASE,
        "pattern": {"name": "units", "mode": "zero"},
    },
}


class Readings:
    """Masks over residual dimensions from as few passes over the text as there are different ones."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._profiles: dict[tuple[bool, str, str], Mapping[str, torch.Tensor]] = {}
        self._cutter = Cutter(layout_of(bench.facts), RESIDUAL[bench.name])

    def measure(self, reading: Reading, ratio: float) -> dict[str, Any]:
        """Zero what a reading drops, and measure what is left."""
        before = self._cutter.layout.sizes.hidden
        try:
            sizes = Target.of(self._cutter, ratio, None).solve(("hidden",))
        except SizeUnreachable as error:
            return {"refused": error.message}
        found = self._profile(reading)
        importances = [diet.importance(found[task], reading.params) for task in reading.tasks]
        dropped = diet.merged(importances, before - sizes.hidden, reading.params)
        return {"dropped": len(dropped), "of": before} | self._zeroed(dropped)

    def _profile(self, reading: Reading) -> Mapping[str, torch.Tensor]:
        if reading.profile not in self._profiles:
            bench, model = self.bench, self.bench.open()
            asked = Calibration.model_validate(bench.calibration(answers=reading.answers))
            self._profiles[reading.profile] = profiles(
                model,
                calibration_windows(bench.reader, asked)[0].by_task,
                reading.params,
                bench.facts.config.get("bos_token_id"),
                devices.batch_tokens(model.device),
                lambda _index: None,
                lambda: None,
            )
        return self._profiles[reading.profile]

    def _zeroed(self, dropped: torch.Tensor) -> dict[str, Any]:
        model = self.bench.open()
        for outside in (model.model.get_input_embeddings(), model.model.get_output_embeddings()):
            outside.weight.data[:, dropped] = 0

        def prepare(_index: int, block: nn.Module) -> None:
            groups = input_groups(block, model.family, model.config)
            matrices = {one.name: one for group in groups for one in group.matrices}
            zero_residual(matrices, model.family, dropped, readers_only=False)

        return self.bench.figures(model, prepare)


def settle(chosen: argparse.Namespace) -> None:
    """Measure what settles how DIET is to be read, in the order of the specification."""
    bench = Bench(chosen.model, samples=chosen.samples, items=chosen.items, windows=chosen.windows)
    kept = Kept(chosen.results, "structured_diet", bench.name, bench.conditions)
    fill(kept, "dense", bench.dense)
    readings = Readings(bench)
    for ratio in chosen.ratios:
        jobs = OTHER_JOBS | {
            name: job | {"pattern": RESIDUAL[bench.name].model_dump()}
            for name, job in RESIDUAL_JOBS.items()
        }
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            name: lambda reading=reading, ratio=ratio: readings.measure(reading, ratio)
            for name, reading in READINGS.items()
        }
        measures |= {
            name: lambda job=job, ratio=ratio: bench.cell(job | {"sparsity": ratio})
            for name, job in jobs.items()
        }
        for name, measure in measures.items():
            if chosen.only in name:
                fill(kept, f"{name} | {amount(ratio)}", measure)


def speed(chosen: argparse.Namespace) -> None:
    """Measure tokens per second of every shape that the table holds, the dense model's in turn with it."""
    folder = MODELS[chosen.model]().resolve()
    device = devices.pick()
    conditions = f"{PROMPT_TOKENS} + {NEW_TOKENS} tokens, {devices.describe(device)}"
    kept = Kept(chosen.results, "structured_speed", chosen.model, conditions)
    tables = read(chosen.results).get("structured", {}).get(chosen.model, {})
    cells = [cell for table in tables.values() for cell in table.values() if "config" in cell]
    shapes = {shape_key(cell): cell["config"] for cell in cells}
    dense = _random_model(folder, {}, device)
    for key, changes in shapes.items():
        if chosen.only in key and key not in kept:
            cut = _random_model(folder, changes, device)
            kept.keep(key, _compared(dense, cut, chosen.rounds))


def _random_model(folder: Path, changes: Mapping[str, Any], device: torch.device) -> Any:
    """Return a stock model of a shape; its weights decide nothing here."""
    config = AutoConfig.from_pretrained(folder, **changes)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().to(device)


def _compared(dense: Any, cut: Any, rounds: int) -> dict[str, Any]:
    prompt = torch.arange(PROMPT_TOKENS, device=dense.device)[None]
    both: list[list[dict[str, float]]] = [[], []]
    for _ in range(rounds):
        for model, found in zip((dense, cut), both, strict=True):
            found.append(throughput(model, prompt, new_tokens=NEW_TOKENS, repeats=1))
    return {
        phase: _speed_up(
            [one[phase] for one in both[0]],
            [one[phase] for one in both[1]],
            1 - operations(cut, phase) / operations(dense, phase),
        )
        for phase in PHASES
    }


def _speed_up(dense: list[float], cut: list[float], removed: float) -> dict[str, Any]:
    """Compare tokens per second with what the operations that went allow."""
    ratios = [after / before for before, after in zip(dense, cut, strict=True)]
    measured, allowed = statistics.median(cut) / statistics.median(dense), 1 / (1 - removed)
    gain = (measured - 1) / (allowed - 1) if allowed > 1 else None
    figures = {
        "dense": statistics.median(dense),
        "cut": statistics.median(cut),
        "speed_up": measured,
        "slowest_round": min(ratios),
        "fastest_round": max(ratios),
        "operations_removed": removed,
        "allowed": allowed,
        "of_allowed": measured / allowed,
        "gain_of_allowed": gain,
    }
    return {name: figure and round(figure, 4) for name, figure in figures.items()}


def operations(model: Any, phase: str) -> float:
    """Return multiply-adds per token: matrices of blocks, attention's own products, head; no look-ups.

    Reading a prompt computes the head for its last token alone.
    """
    blocks = sum(
        parameter.numel()
        for parameter in model.base_model.layers.parameters()
        if parameter.ndim == 2
    )
    config, head = model.config, model.get_output_embeddings().weight.numel()
    heads, width = config.num_attention_heads, config.head_dim
    if phase == "prefill":
        seen, head = (PROMPT_TOKENS + 1) / 2, head / PROMPT_TOKENS
    else:
        seen = PROMPT_TOKENS + (NEW_TOKENS + 1) / 2
    products = 2 * heads * width * seen * config.num_hidden_layers
    return float(blocks + products + head)


def cost(chosen: argparse.Namespace) -> None:
    """Measure CPU seconds of each method over those of a plain forward pass, one thread, in turn."""
    torch.set_num_threads(1)
    folder = MODELS[chosen.model]().resolve()
    tokens = _cost_tokens(folder, chosen)
    conditions = f"{len(tokens)} x {tokens.shape[1]} tokens, 1 thread"
    kept = Kept(chosen.results, "structured_cost", chosen.model, conditions)
    stock: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    actions: dict[str, Callable[[], float]] = {"diet, profile": lambda: _profile(folder, tokens)}
    actions |= {
        name: lambda asked=asked: _walk(folder, asked, tokens) for name, asked in COSTS.items()
    }
    _plain(stock.base_model, tokens[:2])
    for name, action in actions.items():
        if chosen.only not in name or name in kept:
            continue
        rounds = [
            (action(), _cpu(lambda: _plain(stock.base_model, tokens))) for _ in range(chosen.rounds)
        ]
        pruned, plain = (statistics.median(side) for side in zip(*rounds, strict=True))
        found = {"cpu_seconds": pruned, "forward_seconds": plain, "ratio": pruned / plain}
        kept.keep(name, {key: round(figure, 3) for key, figure in found.items()})


def _cost_tokens(folder: Path, chosen: argparse.Namespace) -> torch.Tensor:
    """Return windows of a file, or of the text that calibrates elsewhere."""
    if chosen.tokens:
        return torch.from_numpy(np.load(chosen.tokens)["tokens"]).long()[: chosen.windows]
    asked = {"tasks": [{"name": TEXT, "samples": chosen.windows}], "seq_len": COST_TOKENS}
    reader = TaskReader(folder, inspect(folder), DataUsed(settings.tasks_dir()))
    return calibration_windows(reader, Calibration.model_validate(asked))[0].groups[0]


def _cpu(action: Callable[[], object]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def _plain(body: Any, tokens: torch.Tensor) -> None:
    for batch in tokens.split(max(1, devices.batch_tokens(body.device) // tokens.shape[1])):
        body(input_ids=batch.to(body.device), use_cache=False)


def _profile(folder: Path, tokens: torch.Tensor) -> float:
    """Return the seconds of DIET's pass over the text."""
    model = StreamedModel(folder, inspect(folder), torch.device("cpu"))
    asked = ({"given": (tokens,)}, Diet(), None, devices.batch_tokens(model.device))
    return _cpu(lambda: profiles(model, *asked, lambda _index: None, lambda: None))


def _walk(folder: Path, asked: dict[str, Any], tokens: torch.Tensor) -> float:
    """Return the seconds of deciding and pruning as a job does, up to the last stored block."""
    spec = PruneSpec.model_validate(asked | {"sparsity": COST_RATIO, "evaluation": {"tasks": []}})
    with tempfile.TemporaryDirectory() as out:
        data_used = DataUsed(settings.tasks_dir())
        run = prepare(
            folder,
            spec,
            Path(out),
            tokens,
            Tracker(Silent()),
            data_used,
            Provenance(Origin(model=str(folder))),
        )
        model = StreamedModel(folder, run.facts, run.device)
        return _cpu(lambda: UnitWalk.of(run, model, "bench").walk.run(lambda _index, _report: None))


def _ratios(text: str) -> list[float]:
    return [float(one) for one in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, action, items, windows in (("table", table, 100, 8), ("diet", settle, 50, 4)):
        one = _command(commands, name, action)
        one.add_argument("--items", type=int, default=items, help="per task")
        one.add_argument("--windows", type=int, default=windows, help=f"of {TEXT_TOKENS} tokens")
        one.add_argument("--samples", type=int, default=100, help="per task, to calibrate")
        one.add_argument("--ratios", type=_ratios, default=[0.1, 0.2, 0.3])
    one = _command(commands, "speed", speed)
    one.add_argument("--rounds", type=int, default=5)
    one = _command(commands, "cost", cost)
    one.add_argument("--rounds", type=int, default=1)
    one.add_argument("--windows", type=int, default=128, help=f"of {COST_TOKENS} tokens")
    one.add_argument("--tokens", type=Path, help=".npz with `tokens` [windows, seq]")
    commands.add_parser("page").set_defaults(action=lambda _chosen: write())
    return parser


def _command(
    commands: Any, name: str, action: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=action.__doc__)
    parser.set_defaults(action=action)
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="cells whose key holds this")
    return parser


@torch.no_grad()
def main() -> None:
    chosen = _parser().parse_args()
    chosen.action(chosen)


if __name__ == "__main__":
    main()
