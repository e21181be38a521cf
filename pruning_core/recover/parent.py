"""Recovery: the pruned checkpoint is trained as a whole, in a process of its own; what a mask removed stays zero."""

from __future__ import annotations

import json
from collections.abc import Callable

from pruning_core.errors import (
    ModelInvalid,
    NumericalFailure,
    OutputDoesNotLoad,
    PruningError,
    ResumeMismatch,
)
from pruning_core.recover.job import (
    FOLDER,
    JOB,
    PROBE,
    REPORT,
    STATE,
    TOKENS,
    TrainingJob,
    TrainingTokens,
)
from pruning_core.spec.recovery import RecoveryReport
from pruning_core.system import subprocesses
from pruning_core.system.files import replacing

_CHILD = "pruning_core.recover.child"
_ERRORS: dict[str, type[PruningError]] = {
    error.code: error for error in (NumericalFailure, ModelInvalid, OutputDoesNotLoad)
}


def finetune(
    job: TrainingJob,
    tokens: TrainingTokens,
    *,
    on_progress: subprocesses.ProgressCallback,
    alive: Callable[[], None],
) -> RecoveryReport:
    """Train a checkpoint in a process of its own; leave `FOLDER` and `PROBE` in the job's work folder, made if absent.

    The new folder has the same files and tensor names, shapes and dtypes; only values differ. The probe's file holds
    `tokens` and the trained model's `logits` for them, from weights that have gone through the stored dtypes. A call
    that was cut short goes on from its last checkpoint; one that was finished is answered at once. On a CPU equal calls
    give equal bits, cut short or not, unless `minutes` is set.

    Memory on the device, beside activations: about 16 bytes per parameter for `full`, 4 to 8 for `lora`, 2 to 4 more for a
    teacher; on the host the best weights as stored.

    Args:
        job: What to train, and how; with absolute paths.
        tokens: What to train on, to validate on, and to answer at the end.
        on_progress: Called with what is done, of how much and what, and the share of the whole training; may raise to stop.
        alive: Called every few seconds while the process tells nothing.

    Raises:
        HostOutOfMemory, GpuOutOfMemory, DiskFull: the machine did not let it.
        ModelInvalid: the teacher has another vocabulary.
        NumericalFailure: a loss became NaN or infinite.
        OutputDoesNotLoad: stock transformers cannot train the checkpoint.
        ResumeMismatch: the work folder holds what another fingerprint left.
    """
    work = job.work
    work.mkdir(parents=True, exist_ok=True)
    _check_owner(job)
    if not all((work / name).exists() for name in (REPORT, FOLDER, PROBE)):
        (work / REPORT).unlink(missing_ok=True)
        tokens.save(work / TOKENS)
        with replacing(work / JOB) as temporary:
            temporary.write_text(job.model_dump_json(), encoding="utf-8")
        _run(job, on_progress, alive)
    for name in (STATE, TOKENS):
        (work / name).unlink(missing_ok=True)
    report = RecoveryReport.model_validate_json((work / REPORT).read_bytes())
    on_progress(report.steps, report.steps, "step", 1.0)
    return report


def _check_owner(job: TrainingJob) -> None:
    path = job.work / JOB
    if path.is_file():
        if TrainingJob.model_validate_json(path.read_bytes()).fingerprint == job.fingerprint:
            return
        raise ResumeMismatch(
            f"{job.work} holds the training of another run: choose another folder, or remove this one to start again"
        )


def _run(
    job: TrainingJob, on_progress: subprocesses.ProgressCallback, alive: Callable[[], None]
) -> None:
    try:
        answer = subprocesses.run(_CHILD, str(job.work / JOB), on_progress=on_progress, alive=alive)
    except subprocesses.HelperFailed as error:
        raise OutputDoesNotLoad(f"stock transformers cannot train the result: {error}") from None
    if not (job.work / REPORT).is_file():
        failed = json.loads(answer.splitlines()[-1])
        raise _ERRORS.get(failed["code"], PruningError)(failed["detail"])
