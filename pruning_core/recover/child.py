"""The process that trains: it holds the whole model.

Run as `python -m pruning_core.recover.child JOB`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pruning_core.checkpoints.facts import inspect
from pruning_core.errors import ModelInvalid, PruningError
from pruning_core.model import stock
from pruning_core.model.tensors import main_dtype
from pruning_core.recover.job import (
    FOLDER,
    PROBE,
    REPORT,
    STATE,
    TOKENS,
    TrainingJob,
    TrainingTokens,
)
from pruning_core.recover.loop import Training
from pruning_core.recover.stored_weights import StoredWeights
from pruning_core.recover.trainable_model import TrainableModel
from pruning_core.system import subprocesses
from pruning_core.system.device import compute_dtype
from pruning_core.system.files import replacing


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Return a model as stock transformers loads it, in evaluation mode."""
    model = stock.load(folder, dtype, device)
    model.set_experts_implementation("eager")  # the fused product knows no autocast
    return model


def _teacher(folder: Path, pruned: Any, device: torch.device) -> Any:
    dtype = compute_dtype(main_dtype(inspect(folder)), device)
    model = load(folder, dtype, device).requires_grad_(False)
    ours, theirs = (network.get_output_embeddings().weight.shape[0] for network in (pruned, model))
    if ours != theirs:
        raise ModelInvalid(
            f"the dense model predicts {theirs} tokens, the pruned one {ours}: leave recovery.distillation off"
        )
    return model


def train(job: TrainingJob) -> None:
    """Do what `finetune` describes, in this process; the report is the last file to be written.

    Raises:
        ModelInvalid, NumericalFailure, ResumeMismatch: see `finetune`.
    """
    device, params, work = torch.device(job.device), job.params, job.work
    tokens = TrainingTokens.load(work / TOKENS)
    subprocesses.report_loading()
    model = load(job.checkpoint, torch.float32, device)
    stored = StoredWeights(model, job.checkpoint)
    teacher = _teacher(job.dense, model, device) if params.distillation else None
    trainable = TrainableModel(
        model,
        params,
        masked=stored.masked(job.masked),
        stored=stored.dtypes(),
        blocks=stored.family.blocks,
    )
    training = Training(
        trainable,
        teacher,
        tokens.tokens,
        tokens.validation,
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
        trainable.settle(training.best)
    stored.write(training.best or {}, work / FOLDER)
    with replacing(work / PROBE) as temporary:
        logits = _answers(model, tokens.probe, compute_dtype(stored.main_dtype(), device))
        save_file({"tokens": tokens.probe, "logits": logits}, temporary)
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
        train(TrainingJob.model_validate_json(Path(job).read_bytes()))
    except PruningError as error:
        sys.stdout.write(json.dumps(error.payload()) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1])
