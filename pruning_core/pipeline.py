"""One run from a dense folder to a verified, pruned one: search, allocate, walk, save, verify, evaluate, report."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError

from pruning_core import settings
from pruning_core.engine import device as devices
from pruning_core.engine import export, verify
from pruning_core.engine.activations import Activations
from pruning_core.engine.allocate import needs_forward
from pruning_core.engine.calibration import Texts, Windows, checked_tokens
from pruning_core.engine.checkpoint import Ledger
from pruning_core.engine.decide import Decision
from pruning_core.engine.evaluate import perplexity
from pruning_core.engine.files import disk_errors, replacing, sha256
from pruning_core.engine.model import StreamedModel
from pruning_core.engine.progress import Observer, Silent, Tracker
from pruning_core.engine.walk import Walk
from pruning_core.errors import DatasetTooSmall, DiskFull
from pruning_core.intake import presets
from pruning_core.intake.checkpoint import CheckpointFacts, inspect
from pruning_core.spec.base import digest
from pruning_core.spec.composition import Uniform
from pruning_core.spec.patterns import NofM
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import (
    BlockReport,
    Perplexity,
    Report,
    SearchReport,
    Timing,
    Verification,
)

MASKS_ONLY = (
    "Zeros alone make a dense file no smaller and a forward pass no faster: element-wise masks are for study, "
    "or for runtimes that exploit them. Structured methods shrink the model."
)
PERMUTED_MASK = (
    "The zeros are n:m only in the channel order of channel_order.safetensors: for any kernel these files are an "
    "unstructured sparse model. Use `permute: fold` for files that are n:m as stored."
)
_PRUNE_COST = 1.9
_FIXED_COST = 0.04


@dataclass
class _Run:
    """Everything that the phases of one run share."""

    source: Path
    facts: CheckpointFacts
    spec: PruneSpec
    out: Path
    device: torch.device
    windows: Windows | None
    search_text: Windows | None
    evaluation: dict[str, Windows]
    model_digest: str
    tracker: Tracker
    dense: dict[str, float] = field(default_factory=dict)
    search: SearchReport | None = None

    @property
    def work(self) -> Path:
        return self.out / "work"

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint"


def prune(
    model_dir: Path,
    spec: PruneSpec,
    out_dir: Path,
    *,
    tokens: torch.Tensor | None = None,
    observer: Observer | None = None,
) -> Report:
    """Prune a Hugging Face folder; a re-run over the same `out_dir` goes on where an earlier one stopped.

    Args:
        model_dir: Dense model: `config.json`, safetensors, tokenizer.
        spec: What to do.
        out_dir: Gets `checkpoint/` (complete and verified, or absent), `report.json`, and while running `work/`.
        tokens: int64 [samples, seq_len]; replaces the calibration tasks of the specification.
        observer: Told of every step; raising in it stops the run, resumably.

    Raises:
        PruningError: with a stable code, for everything that can go wrong.
    """
    with disk_errors(out_dir), torch.no_grad():
        run = _prepare(model_dir, presets.expand(spec), out_dir, tokens, observer or Silent())
        fingerprint = _fingerprint(run)
        finished = _finished(run, fingerprint)
        if finished is not None:
            return finished
        _check_space(run)
        _evaluate_dense(run)
        walk, verification, total_bytes = _prune_and_save(run, fingerprint)
        return _report(run, fingerprint, walk, verification, total_bytes)


def _prepare(
    model_dir: Path, spec: PruneSpec, out: Path, tokens: torch.Tensor | None, observer: Observer
) -> _Run:
    facts = inspect(model_dir)
    out.mkdir(parents=True, exist_ok=True)
    texts = Texts(model_dir, facts, settings.tasks_dir())
    windows, search_text = _calibration(spec, facts, texts, tokens)
    evaluation = {task: texts.evaluation(task, spec.evaluation) for task in spec.evaluation_tasks}
    return _Run(
        source=model_dir,
        facts=facts,
        spec=spec,
        out=out,
        device=devices.pick(),
        windows=windows,
        search_text=search_text,
        evaluation=evaluation,
        model_digest=_model_digest(model_dir, facts),
        tracker=Tracker(observer, _costs(spec, facts, windows, evaluation)),
    )


def _calibration(
    spec: PruneSpec, facts: CheckpointFacts, texts: Texts, given: torch.Tensor | None
) -> tuple[Windows | None, Windows | None]:
    """Return the calibration windows, and those that a search judges its candidates on."""
    held_out = spec.held_out_windows
    if not spec.needs_calibration:
        return None, None
    if given is None:
        windows, others = texts.calibration(spec.calibration, held_out=held_out)
    else:
        count = len(checked_tokens(given, facts)) - held_out
        if count < 1:
            raise DatasetTooSmall(f"{held_out} of the given windows are held out; none is left.")
        windows = Windows(given[:count].cpu(), {"given": count})
        others = Windows(given[count:].cpu(), {"given": held_out})
    if spec.reconstruction and len(windows.tokens) < 2:
        raise DatasetTooSmall("Reconstruction needs two calibration windows: one is held out.")
    return windows, others if held_out else None


def _check_space(run: _Run) -> None:
    """Block files and the checkpoint each take about the model's size; finished blocks are there already."""
    there = sum(path.stat().st_size for path in run.work.glob("block-*.safetensors"))
    needed, free = int(2.1 * run.facts.bytes) - there, shutil.disk_usage(run.out).free
    if free < needed:
        raise DiskFull(
            f"{needed} bytes of disk are needed for work files and result, {free} are free"
        )


def _model_digest(folder: Path, facts: CheckpointFacts) -> str:
    """Return sha256 over the configuration and every weight file."""
    content = json.dumps(facts.config, sort_keys=True)
    content += "".join(sha256(folder / name) for name in sorted(set(facts.files.values())))
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


def _costs(
    spec: PruneSpec, facts: CheckpointFacts, windows: Windows | None, evaluation: dict[str, Windows]
) -> dict[str, float]:
    evaluated = sum(found.tokens.numel() for found in evaluation.values()) * facts.blocks
    forward = float(windows.tokens.numel() if windows else 1) * facts.blocks
    costs = {"pruning": forward * _PRUNE_COST, "evaluating_pruned": float(evaluated)}
    if spec.held_out_windows:
        costs["searching"] = forward * _PRUNE_COST
    if not isinstance(spec.allocation, Uniform):
        costs["allocating"] = forward if needs_forward(spec) else forward * _FIXED_COST
    if spec.evaluation.baseline:
        costs["evaluating_dense"] = float(evaluated)
    fixed = _FIXED_COST * sum(costs.values())
    return costs | {"saving": fixed, "verifying": fixed}


def _versions() -> dict[str, str]:
    names = ("secateur", "torch", "transformers", "safetensors")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _fingerprint(run: _Run) -> str:
    """Return the digest of all that decides the result's bytes."""
    content = {
        "model": run.model_digest,
        "spec": digest(run.spec),
        "tokens": run.windows.digest if run.windows else None,
        "search_text": run.search_text.digest if run.search_text else None,
        "versions": _versions(),
        "device": run.device.type,
    }
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _finished(run: _Run, fingerprint: str) -> Report | None:
    """Return the report of an equal run that already ended in this folder."""
    path = run.out / "report.json"
    if not (path.is_file() and run.checkpoint.is_dir()):
        return None
    try:
        report = Report.model_validate_json(path.read_bytes())
    except ValidationError:  # of another version
        return None
    evaluated = {measured.task: measured.digest for measured in report.perplexity}
    same = evaluated == {task: windows.digest for task, windows in run.evaluation.items()}
    return report if same and report.fingerprint == fingerprint else None


def _evaluate_dense(run: _Run) -> None:
    if run.spec.evaluation.baseline and run.evaluation:
        model = StreamedModel(run.source, run.facts, run.device)
        run.dense = _perplexities(run, model, "evaluating_dense")


def _perplexities(run: _Run, model: StreamedModel, key: str) -> dict[str, float]:
    blocks = run.facts.blocks
    run.tracker.begin("evaluating", blocks * len(run.evaluation), key=key)
    found = {}
    for number, (task, windows) in enumerate(run.evaluation.items()):
        step = functools.partial(_step_after, run.tracker, number * blocks + 1)
        found[task] = perplexity(model, windows.tokens, step, alive=run.tracker.alive)
    return found


def _step_after(tracker: Tracker, first: int, index: int) -> None:
    tracker.step(first + index)


def _states(
    run: _Run, model: StreamedModel, *, batch_tokens: int | None = None
) -> Activations | None:
    if run.windows is None:
        return None
    alive = run.tracker.alive
    return Activations(model, run.windows.tokens, batch_tokens=batch_tokens, alive=alive)


def _walk(run: _Run, model: StreamedModel, fingerprint: str, probe: torch.Tensor) -> Walk:
    ledger = Ledger(run.work, fingerprint)
    decision = Decision(model, run.spec, run.windows, run.search_text, run.tracker)
    plan, run.search = decision.make(run.work, fingerprint, begun=0 in ledger)
    run.tracker.begin("calibrating")
    by_window = 1 if run.spec.reconstruction else None
    return Walk(
        model=model,
        plan=plan,
        ledger=ledger,
        calibration=_states(run, model, batch_tokens=by_window),
        probe=Activations(model, probe),
        dense=_states(run, model, batch_tokens=1) if run.spec.reconstruction else None,
        alive=run.tracker.alive,
    )


def _prune_and_save(run: _Run, fingerprint: str) -> tuple[Walk, Verification, int]:
    model = StreamedModel(run.source, run.facts, run.device)
    tokens = verify.probe_tokens(run.facts.vocab_size, run.facts.max_positions)
    walk = _walk(run, model, fingerprint, tokens)

    def block_done(index: int, report: BlockReport | None) -> None:
        run.tracker.step(index + 1, report, replayed=report is None)

    run.tracker.begin("pruning", run.facts.blocks)
    walk.run(block_done)
    run.tracker.begin("saving")
    logits = model.logits(tokens, walk.probe.hidden[0], torch.arange(tokens.shape[1]))
    walk.calibration = walk.dense = None  # not needed any more
    unverified = run.work / "checkpoint"
    shutil.rmtree(unverified, ignore_errors=True)
    blocks = [walk.ledger.path(index) for index in range(run.facts.blocks)]
    size = export.write(
        run.source,
        run.facts,
        blocks,
        unverified,
        shard_bytes=run.spec.output.shard_bytes,
        alive=run.tracker.alive,
    )
    run.tracker.begin("verifying")
    verification = verify.check(
        unverified,
        run.work / "probe.safetensors",
        tokens,
        logits,
        device=run.device,
        alive=run.tracker.alive,
    )
    (run.out / "report.json").unlink(
        missing_ok=True
    )  # it vouches for the checkpoint before this one
    shutil.rmtree(run.checkpoint, ignore_errors=True)
    unverified.rename(run.checkpoint)
    return walk, verification, size


def _report(
    run: _Run, fingerprint: str, walk: Walk, verification: Verification, total_bytes: int
) -> Report:
    perplexities = _evaluate_pruned(run)
    blocks = tuple(walk.ledger.blocks)
    weights = sum(
        matrix.shape[0] * matrix.shape[1] for block in blocks for matrix in block.matrices
    )
    zeros = sum(matrix.zeros for block in blocks for matrix in block.matrices)
    run.tracker.end()
    report = Report(
        spec=run.spec,
        spec_digest=digest(run.spec),
        fingerprint=fingerprint,
        model_digest=run.model_digest,
        family=walk.model.family.name,
        architecture=run.facts.architecture,
        parameters=run.facts.parameters,
        parameters_nonzero=run.facts.parameters - zeros,
        bytes_before=run.facts.bytes,
        bytes_after=total_bytes,
        sparsity=zeros / weights,
        sparsity_model=zeros / run.facts.parameters,
        calibration=run.windows.report(run.spec.calibration.seed) if run.windows else None,
        search=run.search,
        ratios=walk.plan.ratios,
        perplexity=perplexities,
        blocks=blocks,
        resumed_blocks=walk.ledger.resumed,
        timing=Timing(
            phases=run.tracker.seconds, prune_over_forward=_prune_over_forward(run, walk)
        ),
        peak_memory_bytes=devices.peak_memory(run.device),
        verification=verification,
        files=export.manifest(run.checkpoint),
        versions=_versions(),
        device=devices.describe(run.device),
        warnings=tuple(_warnings(run, blocks)),
    )
    with replacing(run.out / "report.json") as temporary:
        temporary.write_text(report.model_dump_json(indent=2), encoding="utf-8")
    shutil.rmtree(run.work)
    return report


def _evaluate_pruned(run: _Run) -> tuple[Perplexity, ...]:
    """Measure the files that the user gets, read back from disk."""
    if not run.evaluation:
        return ()
    model = StreamedModel(run.checkpoint, inspect(run.checkpoint), run.device)
    pruned = _perplexities(run, model, "evaluating_pruned")
    return tuple(
        Perplexity(
            task=task,
            windows=windows.tokens.shape[0],
            seq_len=windows.tokens.shape[1],
            tokens=windows.tokens.shape[0] * (windows.tokens.shape[1] - 1),
            dense=run.dense.get(task),
            pruned=pruned[task],
            digest=windows.digest,
        )
        for task, windows in run.evaluation.items()
    )


def _prune_over_forward(run: _Run, walk: Walk) -> float | None:
    """Compare the walk with its own plain forward passes, scaled to all blocks; None after a resume."""
    if not walk.blocks_forwarded or walk.ledger.resumed:
        return None
    forward = walk.forward_seconds / walk.blocks_forwarded * run.facts.blocks
    return round(sum(block.seconds for block in walk.ledger.blocks) / forward, 3)


def _warnings(run: _Run, blocks: tuple[BlockReport, ...]) -> Iterator[str]:
    yield MASKS_ONLY
    if not run.spec.needs_calibration:
        yield f"{run.spec.method.name} reads no calibration data; the tasks named were not used."
    if isinstance(run.spec.pattern, NofM) and run.spec.pattern.permute == "mask":
        yield PERMUTED_MASK
    if run.search is not None and run.search.kept_ria:
        yield "The search found nothing better than RIA on its text; RIA's coefficients were used."
    for block in blocks:
        yield from block.warnings
