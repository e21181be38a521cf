"""One run from a dense folder to a verified, pruned one: search, allocate, walk, save, verify, evaluate, report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import ValidationError

from pruning_core import settings
from pruning_core.admission import presets
from pruning_core.checkpoints.companions import offered
from pruning_core.checkpoints.private_view import view
from pruning_core.convert import rounding
from pruning_core.convert.plain_names import plainly_named
from pruning_core.datasets.data_used import DataUsed
from pruning_core.datasets.tasks import NO_FILES, Files
from pruning_core.export import checkpoint
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline import results, saving
from pruning_core.pipeline.costs import check_space, costs
from pruning_core.pipeline.element_walk import ElementWalk
from pruning_core.pipeline.evaluation import evaluate_dense
from pruning_core.pipeline.job_walk import JobWalk, Outcome
from pruning_core.pipeline.recovery import recover
from pruning_core.pipeline.run import Provenance, Run, fingerprint_of, prepare, refuse_leaks
from pruning_core.pipeline.unit_walk import UnitWalk
from pruning_core.prune.walk import Walk
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Origin, Report
from pruning_core.spec.report_parts.removal import BlockReport
from pruning_core.spec.unit_method import UnitMethod
from pruning_core.system import run_folder
from pruning_core.system.files import alone_in, disk_errors
from pruning_core.system.progress import Observer, Silent, Tracker

VIEW = "source"
"""Folder in the run's that holds the private view of the dense model while the run lasts."""
RENAMED = "renamed"
"""Folder in the run's for weights whose names carry the wrappers of training, while the run lasts."""


def prune(
    model_dir: Path,
    spec: PruneSpec,
    out_dir: Path,
    *,
    tokens: torch.Tensor | None = None,
    observer: Observer | None = None,
    files: Files = NO_FILES,
    cache_dir: Path | None = None,
    base_model: str | None = None,
    origin: Origin | None = None,
    root: Path | None = None,
    tracker: Tracker | None = None,
) -> Report:
    """Prune a Hugging Face folder; a re-run over the same `out_dir` goes on where an earlier one stopped.

    Args:
        model_dir: Dense model: `config.json`, safetensors, tokenizer.
        spec: What to do.
        out_dir: Gets `checkpoint/` (complete and verified, or absent), `report.json` and `report.html`, and while
            running `work/`.
        tokens: int64 [samples, seq_len]; replaces the calibration tasks of the specification.
        observer: Told of every step; raising in it stops the run, resumably.
        files: Uploaded files by the name that the specification gives them, `file:<id>`.
        cache_dir: Where data from the hub is kept; None for the hub library's own place.
        base_model: The dense model's name on the hub, for the model card.
        origin: What the report says of model and job; None: the folder.
        root: Folder that no file of the model may lie outside of, with every link followed; None for no such bound.
        tracker: What counts already, and goes on; its observer is told in place of `observer`.

    Raises:
        PruningError: with a stable code, for everything that can go wrong.
    """
    data_used = DataUsed(settings.tasks_dir(), files, cache_dir)
    tracker = tracker or Tracker(observer or Silent())
    named = origin or Origin(model=str(model_dir))
    with _model_alone(model_dir, out_dir, root) as model:
        provenance = Provenance(named, base_model, offered(model_dir))
        spec = presets.expand(spec)
        run = prepare(model, spec, out_dir, tokens, tracker, data_used, provenance)
        return _through_all_phases(run)


@contextmanager
def _model_alone(model_dir: Path, out_dir: Path, root: Path | None) -> Iterator[Path]:
    """Yield the model's folder as it may be read, while nothing else writes to the run's; without gradients."""
    with (
        disk_errors(out_dir),
        alone_in(out_dir),
        view(model_dir, out_dir / VIEW, root=root) as viewed,
        plainly_named(viewed, out_dir / RENAMED) as model,
        torch.no_grad(),
    ):
        yield model


def _through_all_phases(run: Run) -> Report:
    refuse_leaks(run.data_used)
    run.tracker.plan(costs(run))
    fingerprint = fingerprint_of(run)
    earlier = _earlier(run, fingerprint)
    if earlier is not None:
        return earlier
    check_space(run)
    if (dtype := saving.rounded_dtype(run)) is not None:
        rounding.check_range(run.source, run.facts, dtype, run.tracker.alive)
    if run.spec.output.gguf is not None:
        saving.check_gguf(run)
    dense = evaluate_dense(run)
    return results.report(run, fingerprint, dense, _prune_and_save(run, fingerprint))


def _earlier(run: Run, fingerprint: str) -> Report | None:
    """Return the report of an equal run that already ended in this folder, and whose files are those that it lists."""
    path = run.out / run_folder.REPORT
    if not path.is_file():
        return None
    try:
        report = Report.model_validate_json(path.read_bytes())
    except ValidationError:  # of another version
        return None
    evaluated = {text.task: text.digest for text in report.perplexity}
    evaluated |= {questions.task: questions.digest for questions in report.accuracy}
    same = evaluated == run.evaluation_set.digests and report.fingerprint == fingerprint
    return report if same and report.files == checkpoint.manifest(run.checkpoint) else None


def _prune_and_save(run: Run, fingerprint: str) -> Outcome:
    """Prune all blocks, save and check the result, and make it the run's checkpoint."""
    job = _job_walk(run, fingerprint)
    _prune_blocks(run, job.walk)
    result, size = _saved(run, job)
    recovery, timed, recovered = run.spec.recovery, run.spec.measures_speed, None
    examined = saving.verified(
        run, result, timed=timed and recovery is None, cut=job.cuts, rescaled=job.rescales
    )
    if recovery is not None:
        result, recovered = recover(run, fingerprint, job, result, recovery)
        examined = saving.verified(run, result, timed=timed)
    folder, rounding_report = result.folder, None
    if (dtype := saving.rounded_dtype(run)) is not None:
        folder, size, rounding_report = saving.rounded(run, result, dtype)
    gguf = saving.as_gguf(run, folder)
    saving.publish(run, folder)
    if gguf is not None:
        gguf[0].rename(run.checkpoint / gguf[0].name)
    return Outcome(
        walk=job.walk,
        decided=job.decided,
        examined=examined,
        bytes=size,
        recovery=recovered,
        rounding=rounding_report,
        gguf=None if gguf is None else gguf[1],
    )


def _job_walk(run: Run, fingerprint: str) -> JobWalk:
    """Decide what is decided before the first block, and return the walk."""
    method = run.spec.method
    if isinstance(method, UnitMethod):
        model = StreamedModel(run.source, run.facts, run.device, eager=method.compares_heads)
        return UnitWalk.of(run, model, fingerprint)
    return ElementWalk.of(run, StreamedModel(run.source, run.facts, run.device), fingerprint)


def _prune_blocks(run: Run, walk: Walk) -> None:
    def block_done(index: int, report: BlockReport | None) -> None:
        run.tracker.step(index + 1, report, replayed=report is None)

    run.tracker.begin("pruning", run.facts.blocks)
    walk.run(block_done)


def _saved(run: Run, job: JobWalk) -> tuple[saving.Probed, int]:
    """Write the checkpoint; return it with what it must answer, and the bytes of its tensors."""
    walk, tokens = job.walk, job.probe
    run.tracker.begin("saving", unit="byte")
    logits = walk.model.logits(tokens, walk.probe.hidden[0], torch.arange(tokens.shape[1]))
    walk.release()
    folder = run.work / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    blocks = [walk.ledger.path(index) for index in range(run.facts.blocks)]
    changes = job.changes(run)
    size = checkpoint.write(
        run.source,
        run.facts,
        [*blocks, *changes.files],
        folder,
        shard_bytes=run.spec.output.shard_bytes,
        changes=changes,
        on_progress=lambda done, total: run.tracker.part(done, total, "byte"),
    )
    return saving.Probed(folder, *job.renumbered(tokens, logits)), size
