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

from pruning_core.checkpoints.facts import CheckpointFacts, inspect
from pruning_core.checkpoints.tokenizer_files import has_tokenizer
from pruning_core.datasets.data_used import DataUsed
from pruning_core.errors import DataLeakage, DatasetTooSmall
from pruning_core.evaluate import lm_eval, verify
from pruning_core.evaluate.evaluation_set import EvaluationSet, evaluation_set
from pruning_core.model import preflight
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.spec.base import digest
from pruning_core.spec.calibration import DEFAULT_SAMPLES
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Origin
from pruning_core.system import device as devices
from pruning_core.system import run_folder
from pruning_core.system.files import sha256
from pruning_core.system.progress import Tracker, counting
from pruning_core.text.calibration_text import calibration_windows
from pruning_core.text.self_generated import sample
from pruning_core.text.task_reader import TaskReader
from pruning_core.text.training_text import training_windows
from pruning_core.text.windows import Windows, checked_tokens
from pruning_core.tokenizers.files import TOKENIZER
from pruning_core.tokenizers.load import check_tokenizer
from pruning_core.tokenizers.probe import probe


@dataclass(frozen=True)
class Provenance:
    """Where the dense model comes from, as the report and the model card say it.

    Attributes:
        origin: Which model and job the report names.
        base_model: The model's name on the hub.
        offered: What lies in the model's folder, read or not.
    """

    origin: Origin
    base_model: str | None = None
    offered: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """Everything that the phases of one run share."""

    source: Path
    facts: CheckpointFacts
    spec: PruneSpec
    out: Path
    device: torch.device
    data_used: DataUsed
    provenance: Provenance
    windows: Windows | None
    search_text: Windows | None
    evaluation_set: EvaluationSet
    model_digest: str
    tracker: Tracker
    reader: TaskReader | None = None
    """The model's tokenizer over the calibration data; None where the caller gave tokens."""
    training: torch.Tensor | None = None
    """Windows that recovery trains and validates on, int64 [windows, seq]."""

    def states(
        self, model: StreamedModel, *, batch_tokens: int | None = None
    ) -> Activations | None:
        """Return the states of the calibration text before the first block; None where nothing reads any.

        Args:
            model: The dense model.
            batch_tokens: Tokens per forward pass, by default what suits the device.
        """
        if self.windows is None:
            return None
        groups, alive = self.windows.groups, self.tracker.alive
        return Activations(model, groups, batch_tokens=batch_tokens, alive=alive)

    @property
    def counted(self) -> tuple[str, ...]:
        """The digests of all text whose tokens are counted to choose a vocabulary."""
        if not self.spec.counts_tokens or not self.reader:
            return ()
        reports = self.data_used.reports()
        return tuple(report.digest for report in reports if report.split == "calibration")

    @property
    def work(self) -> Path:
        """Folder of the resumable state."""
        return self.out / run_folder.WORK

    @property
    def checkpoint(self) -> Path:
        """Folder of the result: complete and verified, or absent."""
        return self.out / run_folder.CHECKPOINT


def prepare(
    model_dir: Path,
    spec: PruneSpec,
    out: Path,
    tokens: torch.Tensor | None,
    tracker: Tracker,
    data_used: DataUsed,
    provenance: Provenance,
) -> Run:
    """Read and tokenise everything that the run needs.

    Args:
        model_dir: Dense model.
        spec: What to do, presets expanded.
        out: Folder of the run.
        tokens: int64 [samples, seq_len]; replaces the calibration tasks.
        tracker: Hears of every step.
        data_used: What the run reads of its tasks.
        provenance: Where the model comes from.

    Raises:
        PruningError: some of it is missing, malformed or too small.
    """
    facts, device = _before_any_work(model_dir, spec, out), devices.pick()
    model_digest = _model_digest(model_dir, facts, tracker)
    reader = _reader(model_dir, facts, data_used, out, model_digest, device, tracker)
    by = evaluation_set(spec, reader)
    training = training_windows(reader, spec.recovery, spec.calibration) if spec.recovery else None
    windows, search_text = _calibration(spec, facts, reader, tokens)
    return Run(
        source=model_dir,
        facts=facts,
        spec=spec,
        out=out,
        device=device,
        data_used=data_used,
        provenance=provenance,
        windows=windows,
        search_text=search_text,
        evaluation_set=by,
        model_digest=model_digest,
        tracker=tracker,
        training=training,
        reader=reader if tokens is None else None,
    )


def _before_any_work(folder: Path, spec: PruneSpec, out: Path) -> CheckpointFacts:
    """Refuse what stock transformers would refuse, and a harness that is not installed; make the run's folder."""
    facts = inspect(folder)
    preflight.check(folder, facts)
    if spec.evaluation.harness == "lm_eval":
        lm_eval.require()
    out.mkdir(parents=True, exist_ok=True)
    return facts


def _reader(
    folder: Path,
    facts: CheckpointFacts,
    data_used: DataUsed,
    out: Path,
    model_digest: str,
    device: torch.device,
    tracker: Tracker,
) -> TaskReader:
    """Return the model's tokenizer over the run's data; the dense model's own text is sampled where a task asks for it."""
    data_used.on_progress = lambda read: tracker.part(read, 0, "text")
    self_generated = functools.partial(
        sample,
        folder,
        out,
        model_digest=model_digest,
        device=device,
        on_progress=tracker.part,
        alive=tracker.waiting,
    )
    reader = TaskReader(folder, facts, data_used, self_generated)
    if has_tokenizer(folder):
        _check_tokenizer(folder, reader, tracker)
    return reader


def _check_tokenizer(folder: Path, reader: TaskReader, tracker: Tracker) -> None:
    """Refuse a tokenizer that would fail when the finished checkpoint is examined with it."""
    if (folder / TOKENIZER).is_file():
        probe(folder / TOKENIZER, tracker.waiting)
    check_tokenizer(folder, reader.tokenizer, verify.PROMPT)


def _calibration(
    spec: PruneSpec, facts: CheckpointFacts, reader: TaskReader, given: torch.Tensor | None
) -> tuple[Windows | None, Windows | None]:
    """Return the calibration samples, and those that a search judges its candidates on."""
    held_out = spec.held_out_windows
    if not spec.needs_calibration:
        return None, None
    if given is None:
        default = spec.calibration.default_samples or spec.method.default_samples or DEFAULT_SAMPLES
        windows, others = calibration_windows(
            reader, spec.calibration, held_out=held_out, default=default
        )
    else:
        count = len(checked_tokens(given, facts)) - held_out
        if count < 1:
            raise DatasetTooSmall(f"{held_out} of the given windows are held out; none is left.")
        used = (given[:count].cpu(),)
        windows = Windows(used, {"given": count}, by_task={"given": used})
        others = Windows((given[count:].cpu(),), {"given": held_out})
    if spec.reconstruction and windows.samples < 2:
        raise DatasetTooSmall("Reconstruction needs two calibration windows: one is held out.")
    return windows, others if held_out else None


def refuse_leaks(data_used: DataUsed) -> None:
    """Refuse an evaluation split that is wholly in the calibration text.

    Raises:
        DataLeakage: one is.
    """
    for overlap in data_used.overlaps():
        if overlap.items == data_used.distinct(overlap.evaluation_task, "eval"):
            raise DataLeakage(
                f"Every item of the evaluation split of {overlap.evaluation_task!r} is in the calibration split of "
                f"{overlap.calibration_task!r}: a figure measured on it would flatter the result."
            )


def _model_digest(folder: Path, facts: CheckpointFacts, tracker: Tracker) -> str:
    """Return sha256 over the configuration and every weight file."""
    files = [folder / name for name in sorted(set(facts.files.values()))]
    tracker.begin("preparing", sum(path.stat().st_size for path in files), unit="byte")
    add = counting(tracker.step)
    content = json.dumps(facts.config, sort_keys=True)
    content += "".join(sha256(path, on_bytes=add) for path in files)
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


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
        "training": Windows((run.training,), {}).digest if run.training is not None else None,
        "counted": run.counted,
        "versions": versions(),
        "device": run.device.type,
    }
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
