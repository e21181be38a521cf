"""Recovery fine-tuning of a run's checkpoint: its text, its masks, and the check of what came out."""

from __future__ import annotations

from collections.abc import Iterable

from safetensors.torch import load_file

from pruning_core.checkpoints.facts import inspect
from pruning_core.checkpoints.headers import read_header
from pruning_core.pipeline.job_walk import JobWalk
from pruning_core.pipeline.run import Run
from pruning_core.pipeline.saving import Probed
from pruning_core.recover import held_out
from pruning_core.recover.job import FOLDER, PROBE, TrainingJob, TrainingTokens
from pruning_core.recover.parent import finetune
from pruning_core.spec.recovery import Recovery, RecoveryReport
from pruning_core.system import run_folder
from pruning_core.text.task_reader import TaskReader
from pruning_core.text.training_text import training_windows


def recover(
    run: Run, fingerprint: str, job: JobWalk, pruned: Probed, params: Recovery
) -> tuple[Probed, RecoveryReport]:
    """Train the checkpoint; return the trained one and what training did.

    Args:
        run: The run.
        fingerprint: Of all that decides the result's bytes.
        job: What was done to each block.
        pruned: The pruned model, verified.
        params: How to train.
    """
    windows, plan = run.training, job.decided.units
    if plan is not None and plan.renumbers:
        reader = TaskReader(pruned.folder, inspect(pruned.folder), run.data_used)
        windows = training_windows(reader, params, run.spec.calibration)
    assert windows is not None
    training, validation = held_out.split(windows, params)
    run.tracker.begin("recovering", unit="step")
    work = run.work / run_folder.RECOVERY
    training_job = TrainingJob(
        checkpoint=pruned.folder.absolute(),
        dense=run.source.absolute(),
        work=work.absolute(),
        device=str(run.device),
        fingerprint=fingerprint,
        masked=[*_masked(run, job)],
        params=params,
    )
    report = finetune(
        training_job,
        TrainingTokens(training, validation, pruned.tokens),
        on_progress=run.tracker.part,
        alive=run.tracker.waiting,
    )
    logits = load_file(work / PROBE)["logits"]
    return Probed(work / FOLDER, pruned.tokens, logits), report


def _masked(run: Run, job: JobWalk) -> Iterable[str]:
    """Return the stored names of tensors whose zeros stay zero."""
    if job.decided.units is None:
        matrices = (matrix for block in job.walk.ledger.blocks for matrix in block.matrices)
        return dict.fromkeys(matrix.name.partition("[")[0] for matrix in matrices)
    if job.cuts:
        return ()
    files = run.work.glob("*.safetensors")
    changed = {name for path in files for name in read_header(path)}
    return sorted(changed & set(run.facts.tensors))
