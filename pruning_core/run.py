"""What all phases of one run share, read and checked before any work is done."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from pruning_core.engine import device as devices
from pruning_core.engine import harness
from pruning_core.engine.allocate import needs_forward
from pruning_core.engine.calibration import Texts, Windows, checked_tokens
from pruning_core.engine.files import sha256
from pruning_core.engine.measure import Measured, Yardsticks, yardsticks
from pruning_core.engine.own_text import sample
from pruning_core.engine.progress import Observer, Tracker
from pruning_core.errors import DataLeakage, DatasetTooSmall
from pruning_core.intake.checkpoint import CheckpointFacts, inspect
from pruning_core.intake.sources import Sources
from pruning_core.spec.base import digest
from pruning_core.spec.composition import Uniform
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import SearchReport

_PRUNE_COST = 1.9
_FIXED_COST = 0.04


@dataclass
class Run:
    """Everything that the phases of one run share."""

    source: Path
    facts: CheckpointFacts
    spec: PruneSpec
    out: Path
    device: torch.device
    sources: Sources
    base_model: str | None
    windows: Windows | None
    search_text: Windows | None
    yardsticks: Yardsticks
    model_digest: str
    tracker: Tracker
    dense: Measured | None = None
    harness_dense: list[harness.Row] | None = None
    search: SearchReport | None = None

    @property
    def work(self) -> Path:
        """Folder of the resumable state."""
        return self.out / "work"

    @property
    def checkpoint(self) -> Path:
        """Folder of the result: complete and verified, or absent."""
        return self.out / "checkpoint"


def prepare(
    model_dir: Path,
    spec: PruneSpec,
    out: Path,
    tokens: torch.Tensor | None,
    observer: Observer,
    sources: Sources,
    base_model: str | None,
) -> Run:
    """Read and tokenise everything that the run needs.

    Args:
        model_dir: Dense model.
        spec: What to do, presets expanded.
        out: Folder of the run.
        tokens: int64 [samples, seq_len]; replaces the calibration tasks.
        observer: Told of every step.
        sources: The data.
        base_model: The dense model's name on the hub.

    Raises:
        PruningError: something of it is missing, malformed or too small.
    """
    facts, device = inspect(model_dir), devices.pick()
    if spec.evaluation.harness == "lm_eval":
        harness.require()
    out.mkdir(parents=True, exist_ok=True)
    model_digest = _model_digest(model_dir, facts)
    own_text = functools.partial(
        sample,
        model_dir,
        out,
        model_digest=model_digest,
        device=device,
        alive=observer.alive,
    )
    texts = Texts(model_dir, facts, sources, own_text)
    by = yardsticks(spec, texts, sources)
    windows, search_text = _calibration(spec, facts, texts, tokens)
    _refuse_leaks(sources)
    return Run(
        source=model_dir,
        facts=facts,
        spec=spec,
        out=out,
        device=device,
        sources=sources,
        base_model=base_model,
        windows=windows,
        search_text=search_text,
        yardsticks=by,
        model_digest=model_digest,
        tracker=Tracker(observer, _costs(spec, facts, windows, by)),
    )


def _calibration(
    spec: PruneSpec, facts: CheckpointFacts, texts: Texts, given: torch.Tensor | None
) -> tuple[Windows | None, Windows | None]:
    """Return the calibration samples, and those that a search judges its candidates on."""
    held_out = spec.held_out_windows
    if not spec.needs_calibration:
        return None, None
    if given is None:
        windows, others = texts.calibration(spec.calibration, held_out=held_out)
    else:
        count = len(checked_tokens(given, facts)) - held_out
        if count < 1:
            raise DatasetTooSmall(f"{held_out} of the given windows are held out; none is left.")
        windows = Windows((given[:count].cpu(),), {"given": count})
        others = Windows((given[count:].cpu(),), {"given": held_out})
    if spec.reconstruction and windows.samples < 2:
        raise DatasetTooSmall("Reconstruction needs two calibration windows: one is held out.")
    return windows, others if held_out else None


def _refuse_leaks(sources: Sources) -> None:
    for overlap in sources.overlaps():
        if overlap.items == sources.distinct(overlap.evaluation_task, "eval"):
            raise DataLeakage(
                f"Every item of the evaluation split of {overlap.evaluation_task!r} is in the calibration split of "
                f"{overlap.calibration_task!r}: a figure measured on it would flatter the result."
            )


def _model_digest(folder: Path, facts: CheckpointFacts) -> str:
    """Return sha256 over the configuration and every weight file."""
    content = json.dumps(facts.config, sort_keys=True)
    content += "".join(sha256(folder / name) for name in sorted(set(facts.files.values())))
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


def _costs(
    spec: PruneSpec, facts: CheckpointFacts, windows: Windows | None, by: Yardsticks
) -> dict[str, float]:
    evaluated = by.tokens * facts.blocks
    forward = float(windows.tokens if windows else 1) * facts.blocks
    costs = {"pruning": forward * _PRUNE_COST, "evaluating_pruned": float(evaluated)}
    if spec.held_out_windows:
        costs["searching"] = forward * _PRUNE_COST
    if not isinstance(spec.allocation, Uniform):
        costs["allocating"] = forward if needs_forward(spec) else forward * _FIXED_COST
    if spec.evaluation.baseline:
        costs["evaluating_dense"] = float(evaluated)
    fixed = _FIXED_COST * sum(costs.values())
    return costs | {"saving": fixed, "verifying": fixed}


def versions() -> dict[str, str]:
    """Return the versions that decide numbers."""
    names = ("secateur", "torch", "transformers", "safetensors")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def fingerprint_of(run: Run) -> str:
    """Return the digest of all that decides the result's bytes."""
    content = {
        "model": run.model_digest,
        "spec": digest(run.spec),
        "tokens": run.windows.digest if run.windows else None,
        "search_text": run.search_text.digest if run.search_text else None,
        "versions": versions(),
        "device": run.device.type,
    }
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
