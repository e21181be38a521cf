"""Recovery fine-tuning of a run's checkpoint: its text, its masks, and the check of what came out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file

from pruning_core.checkpoints.facts import inspect
from pruning_core.checkpoints.headers import read_header
from pruning_core.pipeline.run import Run, training_windows
from pruning_core.prune.walk import Walk
from pruning_core.recover import held_out, process
from pruning_core.spec.recovery import Recovery
from pruning_core.text.windows import Texts


def recover(
    run: Run, fingerprint: str, walk: Walk, checkpoint: Path, tokens: torch.Tensor, params: Recovery
) -> tuple[Path, torch.Tensor]:
    """Train the checkpoint; return the trained one's folder and its logits of the probe.

    Args:
        run: The run; its report of the recovery is filled in.
        fingerprint: Of all that decides the result's bytes.
        walk: What was done to each block.
        checkpoint: The pruned model, verified.
        tokens: int64 [1, seq], the probe, as the checkpoint numbers its tokens.
        params: How to train.
    """
    windows = run.training
    if run.units is not None and run.units.renumbers:
        texts = Texts(checkpoint, inspect(checkpoint), run.sources)
        windows = training_windows(run.spec, texts)
    assert windows is not None
    training, validation = held_out.split(windows, params)
    run.tracker.begin("recovering", unit="step")
    work = run.work / "recovery"
    run.recovery = process.finetune(
        checkpoint,
        run.source,
        work,
        params,
        training,
        validation,
        tokens,
        masked=[*_masked(run, walk)],
        device=run.device,
        fingerprint=fingerprint,
        on_progress=run.tracker.part,
        alive=run.tracker.waiting,
    )
    return work / process.FOLDER, load_file(work / process.PROBE)["logits"]


def _masked(run: Run, walk: Walk) -> Iterable[str]:
    """Return the stored names of tensors whose zeros stay zero."""
    if run.units is None:
        matrices = (matrix for block in walk.ledger.blocks for matrix in block.matrices)
        return dict.fromkeys(matrix.name.partition("[")[0] for matrix in matrices)
    if run.units.removing:
        return ()
    files = run.work.glob("*.safetensors")
    changed = {name for path in files for name in read_header(path)}
    return sorted(changed & set(run.facts.tensors))
