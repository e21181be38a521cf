"""Recovery: the pruned checkpoint is trained as a whole, in a process of its own; what a mask removed stays zero.

Run as `python -m pruning_core.recover.process JOB`, this file is the process that trains: it holds the whole model.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from pruning_core.checkpoints.facts import CheckpointFacts, inspect
from pruning_core.errors import (
    ModelInvalid,
    NumericalFailure,
    OutputDoesNotLoad,
    PruningError,
    ResumeMismatch,
)
from pruning_core.families import family_of
from pruning_core.model import stock
from pruning_core.model.tensors import TensorFiles, main_dtype
from pruning_core.recover.loop import Training
from pruning_core.recover.trainable_model import Student
from pruning_core.spec.recovery import Recovery, RecoveryReport
from pruning_core.system import subprocesses
from pruning_core.system.device import compute_dtype
from pruning_core.system.files import flush, replacing

FOLDER = "recovered"
PROBE = "recovered-probe.safetensors"
REPORT = "recovered.json"
STATE = "recovery-state.safetensors"
_JOB = "recovery-job.json"
TOKENS = "recovery-tokens.safetensors"
_ERRORS: dict[str, type[PruningError]] = {
    error.code: error for error in (NumericalFailure, ModelInvalid, OutputDoesNotLoad)
}


def finetune(
    checkpoint: Path,
    dense: Path,
    work: Path,
    params: Recovery,
    tokens: torch.Tensor,
    validation: torch.Tensor,
    probe: torch.Tensor,
    *,
    masked: Sequence[str],
    device: torch.device,
    fingerprint: str,
    on_progress: subprocesses.ProgressCallback,
    alive: Callable[[], None],
) -> RecoveryReport:
    """Train a checkpoint in a process of its own; leave `recovered` and `recovered-probe.safetensors` in `work`.

    The new folder has the same files and tensor names, shapes and dtypes; only values differ. The probe's file holds
    `tokens` and the trained model's `logits` for them, from weights that have gone through the stored dtypes. A call
    that was cut short goes on from its last checkpoint; one that was finished is answered at once. On a CPU equal calls
    give equal bits, cut short or not, unless `minutes` is set.

    Memory on the device, beside activations: about 16 bytes per parameter for `full`, 4 to 8 for `lora`, 2 to 4 more for a
    teacher; on the host the best weights as stored.

    Args:
        checkpoint: The pruned model's folder.
        dense: The dense model's, the teacher where `params.distillation` asks for one.
        work: Folder for everything that is left on disk; made if absent.
        params: How to train.
        tokens: int64 [windows, seq], full windows without padding.
        validation: int64 [windows, seq], windows that are not among `tokens`.
        probe: int64 [1, seq].
        masked: Stored names of tensors whose zeros must stay zero. Where transformers fuses tensors (experts), zeros of
            the others in the same fused one stay as well.
        device: Where to train.
        fingerprint: Of everything that decides the result.
        on_progress: Called with what is done, of how much and what, and the share of the whole training; may raise to stop.
        alive: Called every few seconds while the process tells nothing.

    Raises:
        HostOutOfMemory, GpuOutOfMemory, DiskFull: the machine did not let it.
        ModelInvalid: the teacher has another vocabulary.
        NumericalFailure: a loss became NaN or infinite.
        OutputDoesNotLoad: stock transformers cannot train the checkpoint.
        ResumeMismatch: `work` holds what another fingerprint left.
    """
    work.mkdir(parents=True, exist_ok=True)
    _check_owner(work, fingerprint)
    if not all((work / name).exists() for name in (REPORT, FOLDER, PROBE)):
        (work / REPORT).unlink(missing_ok=True)
        contents = {"tokens": tokens, "validation": validation, "probe": probe}
        rows = {name: windows.cpu().contiguous() for name, windows in contents.items()}
        with replacing(work / TOKENS) as temporary:
            save_file(rows, temporary)
        job = Job(
            checkpoint=checkpoint.absolute(),
            dense=dense.absolute(),
            work=work.absolute(),
            device=str(device),
            fingerprint=fingerprint,
            masked=list(masked),
            params=params,
        )
        with replacing(work / _JOB) as temporary:
            temporary.write_text(job.model_dump_json(), encoding="utf-8")
        _run(work, on_progress, alive)
    for name in (STATE, TOKENS):
        (work / name).unlink(missing_ok=True)
    report = RecoveryReport.model_validate_json((work / REPORT).read_bytes())
    on_progress(report.steps, report.steps, "step", 1.0)
    return report


class Job(BaseModel):
    """What the training process is asked for; see `finetune`."""

    checkpoint: Path
    dense: Path
    work: Path
    device: str
    fingerprint: str
    masked: list[str]
    params: Recovery


def _check_owner(work: Path, fingerprint: str) -> None:
    path = work / _JOB
    if path.is_file():
        if Job.model_validate_json(path.read_bytes()).fingerprint == fingerprint:
            return
        raise ResumeMismatch(
            f"{work} holds the training of another run: choose another folder, or remove this one to start again"
        )


def _run(work: Path, on_progress: subprocesses.ProgressCallback, alive: Callable[[], None]) -> None:
    try:
        answer = subprocesses.run(__name__, str(work / _JOB), on_progress=on_progress, alive=alive)
    except subprocesses.HelperFailed as error:
        raise OutputDoesNotLoad(f"stock transformers cannot train the result: {error}") from None
    if not (work / REPORT).is_file():
        failed = json.loads(answer.splitlines()[-1])
        raise _ERRORS.get(failed["code"], PruningError)(failed["detail"])


class Stored:
    """A model's parameters under the names that its checkpoint has for them.

    Args:
        model: As stock transformers loaded it.
        folder: The checkpoint.

    Raises:
        ModelInvalid: a parameter is in no file.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._facts: CheckpointFacts = inspect(folder)
        self.family = family_of(self._facts.model_type)
        self._files = TensorFiles(folder, self._facts, self.family)
        self._aliases: dict[str, list[str]] = {}
        first: dict[int, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._aliases.setdefault(first.setdefault(id(parameter), name), []).append(name)
        self.names = {
            name: list(self.tensors(name, model.get_parameter(name).data)) for name in self._aliases
        }
        lost = [name for name, stored in self.names.items() if not stored]
        if lost:
            raise ModelInvalid(f"the checkpoint lacks {lost[0]}: it cannot be trained")

    def tensors(self, name: str, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a parameter's tensors by stored name: more than one where it is tied, or fused when loaded."""
        from transformers.core_model_loading import revert_weight_conversion

        found: dict[str, torch.Tensor] = {}
        for alias in self._aliases[name]:
            for canonical, tensor in revert_weight_conversion(self._model, {alias: weight}).items():
                stored = self._files.stored_name(canonical)
                if stored is not None:
                    found[stored] = tensor
        return found

    def dtypes(self) -> dict[str, torch.dtype]:
        """Return the dtype of each parameter in the files, the coarsest of its tensors'."""
        return {
            name: min((self._files.dtype(one) for one in stored), key=lambda dtype: dtype.itemsize)
            for name, stored in self.names.items()
        }

    def main_dtype(self) -> torch.dtype:
        """Return the dtype that holds most of the weights."""
        return main_dtype(self._facts)

    def masked(self, stored: Iterable[str]) -> list[str]:
        """Return the parameters that hold any of the stored tensors."""
        wanted = set(stored)
        return [name for name, tensors in self.names.items() if wanted & set(tensors)]

    def write(self, weights: Mapping[str, torch.Tensor], target: Path) -> None:
        """Copy the folder, with the given parameters in place of its own.

        Raises:
            OutputDoesNotLoad: a shape does not fit; nothing of ours should cause it.
        """
        temporary = target.with_name(f"{target.name}.tmp")
        for path in (target, temporary):
            shutil.rmtree(path, ignore_errors=True)
        shards = set(self._facts.files.values()) if weights else set()
        weights_apart = shutil.ignore_patterns(*shards)
        shutil.copytree(
            self._folder,
            temporary,
            ignore=lambda where, names: (
                weights_apart(where, names) if Path(where) == self._folder else set()
            ),
        )
        new = {
            stored: tensor
            for name, weight in weights.items()
            for stored, tensor in self.tensors(name, weight).items()
        }
        for number, shard in enumerate(sorted(shards), 1):
            subprocesses.report_progress(number - 1, len(shards), "file")
            tensors = load_file(self._folder / shard)
            for name in tensors.keys() & new.keys():
                if new[name].shape != tensors[name].shape:
                    raise OutputDoesNotLoad(f"{name} has another shape after training")
                tensors[name] = new[name].to(tensors[name].dtype, copy=True).contiguous()
            save_file(tensors, temporary / shard, metadata={"format": "pt"})
        for path in temporary.rglob("*"):
            flush(path)
        temporary.replace(target)
        flush(target.parent)


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Return a model as stock transformers loads it, in evaluation mode."""
    model = stock.load(folder, dtype, device)
    model.set_experts_implementation("eager")  # the fused product knows no autocast
    return model


def _teacher(folder: Path, student: Any, device: torch.device) -> Any:
    dtype = compute_dtype(main_dtype(inspect(folder)), device)
    model = load(folder, dtype, device).requires_grad_(False)
    ours, theirs = (one.get_output_embeddings().weight.shape[0] for one in (student, model))
    if ours != theirs:
        raise ModelInvalid(
            f"the dense model predicts {theirs} tokens, the pruned one {ours}: leave recovery.distillation off"
        )
    return model


def recover(job: Job) -> None:
    """Do what `finetune` describes, in this process; the report is the last file to be written.

    Raises:
        ModelInvalid, NumericalFailure, ResumeMismatch: see `finetune`.
    """
    device, params, work = torch.device(job.device), job.params, job.work
    data = load_file(work / TOKENS)
    subprocesses.report_loading()
    model = load(job.checkpoint, torch.float32, device)
    stored = Stored(model, job.checkpoint)
    teacher = _teacher(job.dense, model, device) if params.distillation else None
    student = Student(
        model,
        params,
        masked=stored.masked(job.masked),
        stored=stored.dtypes(),
        blocks=stored.family.blocks,
    )
    training = Training(
        student,
        teacher,
        data["tokens"],
        data["validation"],
        params,
        device=device,
        path=work / STATE,
        fingerprint=job.fingerprint,
        on_progress=_whole_training(),
    )
    report = training.run()
    if training.best is None:
        model = load(job.checkpoint, torch.float32, device)
    else:
        student.settle(training.best)
    stored.write(training.best or {}, work / FOLDER)
    with replacing(work / PROBE) as temporary:
        logits = _answers(model, data["probe"], compute_dtype(stored.main_dtype(), device))
        save_file({"tokens": data["probe"], "logits": logits}, temporary)
    with replacing(work / REPORT) as temporary:
        temporary.write_text(report.model_dump_json(), encoding="utf-8")


def _answers(model: Any, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return the logits of int64 [1, seq], on the CPU; products and parameters in the given dtype."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    with torch.no_grad():
        logits: torch.Tensor = model(tokens.to(model.device)).logits
    return logits.cpu().contiguous()


def _whole_training() -> subprocesses.ProgressCallback:
    """Return what tells the parent, and ends this process with it: two must not train in one folder."""
    parent = os.getppid()

    def tell_parent(done: int, total: int, unit: str, share: float | None) -> None:
        if os.getppid() != parent:
            raise SystemExit("the run that asked for this training is gone")
        subprocesses.report_progress(done, total, unit, share)

    return tell_parent


def _main(job: str) -> None:
    try:
        recover(Job.model_validate_json(Path(job).read_bytes()))
    except PruningError as error:
        sys.stdout.write(json.dumps(error.payload()) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1])
