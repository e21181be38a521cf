"""One run from a dense folder to a verified, pruned one: search, allocate, walk, save, verify, evaluate, report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from pydantic import ValidationError

from pruning_core import settings
from pruning_core.admission import presets
from pruning_core.checkpoints.companions import offered
from pruning_core.checkpoints.private_view import view
from pruning_core.convert import rounding, to_gguf
from pruning_core.convert.gguf_vocabulary import check_vocabulary
from pruning_core.convert.plain_names import plainly_named
from pruning_core.datasets.data_used import Sources
from pruning_core.datasets.tasks import NO_FILES, Files
from pruning_core.decide.element import Decision
from pruning_core.errors import DiskFull
from pruning_core.evaluate import verify
from pruning_core.export import checkpoint
from pruning_core.export.checkpoint import UNCHANGED
from pruning_core.gguf.writable import names_of, table_of
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline import results
from pruning_core.pipeline.recovery import recover
from pruning_core.pipeline.run import Run, fingerprint_of, prepare
from pruning_core.pipeline.unit_walk import UnitWalk
from pruning_core.prune.elements import element_walk
from pruning_core.prune.ledger import Ledger
from pruning_core.prune.walk import Walk
from pruning_core.recover import process
from pruning_core.spec.output import RoundedDtype
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import BlockReport, Origin, Report
from pruning_core.spec.unit_methods import UnitMethod
from pruning_core.system.files import alone_in, disk_errors, flush
from pruning_core.system.progress import Observer, Silent, Tracker

VIEW = "source"
"""Folder in the run's that holds the private view of the dense model while the run lasts."""
RENAMED = "renamed"
"""Folder in the run's for weights whose names carry the wrappers of training, while the run lasts."""
_STATE_BYTES = {"full": 12, "lora": 1}
"""Of training's state per parameter, beside the best weights: what is trained and AdamW's moments, in float32."""


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
    with (
        disk_errors(out_dir),
        alone_in(out_dir),
        view(model_dir, out_dir / VIEW, root=root) as viewed,
        plainly_named(viewed, out_dir / RENAMED) as model,
        torch.no_grad(),
    ):
        sources = Sources(settings.tasks_dir(), files, cache_dir)
        spec = presets.expand(spec)
        run = prepare(
            model,
            spec,
            out_dir,
            tokens,
            tracker or Tracker(observer or Silent()),
            sources,
            base_model,
            origin or Origin(model=str(model_dir)),
        )
        run.offered = offered(model_dir)
        fingerprint = fingerprint_of(run)
        finished = _finished(run, fingerprint)
        if finished is not None:
            return finished
        _check_space(run)
        if (dtype := _dtype(run)) is not None:
            rounding.check_range(run.source, run.facts, dtype, run.tracker.alive)
        if run.spec.output.gguf is not None:
            _check_gguf(run)
        results.evaluate_dense(run)
        walk, examined, total_bytes = _prune_and_save(run, fingerprint)
        return results.report(run, fingerprint, walk, examined, total_bytes)


def _finished(run: Run, fingerprint: str) -> Report | None:
    """Return the report of an equal run that already ended in this folder, and whose files are those that it lists."""
    path = run.out / "report.json"
    if not path.is_file():
        return None
    try:
        report = Report.model_validate_json(path.read_bytes())
    except ValidationError:  # of another version
        return None
    evaluated = {one.task: one.digest for one in report.perplexity}
    evaluated |= {one.task: one.digest for one in report.accuracy}
    same = evaluated == run.evaluation_set.digests and report.fingerprint == fingerprint
    return report if same and report.files == checkpoint.manifest(run.checkpoint) else None


def _check_space(run: Run) -> None:
    """Block files, the checkpoint and each further form of it take about the model's size; finished blocks are there already."""
    there = sum(path.stat().st_size for path in run.work.glob("block-*.safetensors"))
    copies = (_dtype(run) is not None) + (run.spec.output.gguf is not None)
    needed = int((2.1 + copies) * run.facts.bytes) - there + _recovery_space(run)
    free = shutil.disk_usage(run.out).free
    if free < needed:
        raise DiskFull(
            f"{needed} bytes of disk are needed for work files and result, {free} are free"
        )


def _recovery_space(run: Run) -> int:
    """Return the bytes of the trained checkpoint and of training's state, which is there twice while it is replaced."""
    recovery, folder = run.spec.recovery, run.work / "recovery"
    if recovery is None or (folder / process.REPORT).is_file():
        return 0
    states = 2 * (_STATE_BYTES[recovery.method] * run.facts.parameters + run.facts.bytes)
    there = sum(path.stat().st_size for path in folder.glob(process.STATE))
    return run.facts.bytes + states - there


def _walk(run: Run, model: StreamedModel, fingerprint: str, probe: torch.Tensor) -> Walk:
    ledger = Ledger(run.work, fingerprint)
    decision = Decision(model, run.spec, run.windows, run.search_text, run.tracker)
    plan, run.search = decision.make(run.work, fingerprint, begun=0 in ledger)
    run.ratios = plan.ratios
    run.tracker.begin("calibrating")
    by_window = 1 if run.spec.reconstruction else None
    calibration = run.states(model, batch_tokens=by_window)
    dense = run.states(model, batch_tokens=1) if run.spec.reconstruction else None

    start = Activations(model, probe)
    alive = run.tracker.alive
    return element_walk(model, plan, ledger, calibration, start, dense=dense, alive=alive)


def _prune_and_save(run: Run, fingerprint: str) -> tuple[Walk, verify.Examined, int]:
    method = run.spec.method
    eager = isinstance(method, UnitMethod) and method.compares_heads
    model = StreamedModel(run.source, run.facts, run.device, eager=eager)
    units = None
    if isinstance(method, UnitMethod):
        units = UnitWalk.of(run, model, fingerprint)
        walk, tokens, run.units = units.walk, units.probe, units.plan
    else:
        tokens = verify.probe_tokens(run.facts.vocab_size, run.facts.max_positions)
        walk = _walk(run, model, fingerprint, tokens)
    _prune_blocks(run, walk)
    run.tracker.begin("saving", unit="byte")
    logits = model.logits(tokens, walk.probe.hidden[0], torch.arange(tokens.shape[1]))
    walk.release()
    unverified = run.work / "checkpoint"
    shutil.rmtree(unverified, ignore_errors=True)
    size = _save(run, walk, units, unverified)
    if units is not None:
        tokens, logits = units.renumbered(tokens, logits)
    cut, rescaled = units is not None and units.plan.removing, units is not None and units.rescaled
    recovery, timed = run.spec.recovery, run.spec.measures_speed
    first = timed and recovery is None
    examined = _verified(run, unverified, tokens, logits, cut=cut, rescaled=rescaled, timed=first)
    if recovery is not None:
        unverified, logits = recover(run, fingerprint, walk, unverified, tokens, recovery)
        examined = _verified(run, unverified, tokens, logits, timed=timed)
    dtype = _dtype(run)
    if dtype is not None:
        unverified, size = _rounded(run, unverified, dtype, tokens, logits)
    made = _gguf(run, unverified)
    _publish(run, unverified)
    if made is not None:
        made.rename(run.checkpoint / made.name)
    return walk, examined, size


def _gguf(run: Run, verified: Path) -> Path | None:
    """Write a verified checkpoint as GGUF too, where that is asked for, and return the file."""
    kind = run.spec.output.gguf
    if kind is None:
        return None
    run.tracker.begin("saving", key="gguf")
    path = run.work / to_gguf.file_name(kind)
    run.gguf = to_gguf.write(verified, path, kind, _pre(run), run.tracker.alive)
    flush(path)
    return path


def _pre(run: Run) -> str | None:
    return run.facts.gguf.pre if run.facts.gguf else None


def _check_gguf(run: Run) -> None:
    """Refuse a model that cannot be written as GGUF, before any work is done."""
    table = table_of(run.facts.config)
    names_of(run.facts.config, table, run.facts.tensors)
    check_vocabulary(run.source, _pre(run))


def _dtype(run: Run) -> RoundedDtype | None:
    asked = run.spec.output.rounds_to(gguf=run.facts.gguf is not None)
    return rounding.needed(run.facts, asked)


def _rounded(
    run: Run, verified: Path, dtype: RoundedDtype, tokens: torch.Tensor, logits: torch.Tensor
) -> tuple[Path, int]:
    """Round a verified checkpoint's weights; return the folder and the bytes of its tensors."""
    run.tracker.begin("saving", key="rounding")
    folder = run.work / "rounded"
    found = rounding.write(verified, folder, dtype, run.tracker.alive)
    run.tracker.begin("verifying", key="verifying_rounded")
    examined = verify.check(
        folder,
        run.work / "probe.safetensors",
        tokens,
        logits,
        rounded=True,
        device=run.device,
        alive=run.tracker.alive,
    )
    run.rounding = found.report(dtype, examined.verification.max_logit_difference)
    return folder, found.bytes


def _publish(run: Run, verified: Path) -> None:
    """Make a folder the run's checkpoint; a trained one stays in `work` too, for a run that is cut short hereafter."""
    if run.spec.recovery is not None:
        trained, verified = verified, run.work / "linked"
        shutil.rmtree(verified, ignore_errors=True)
        shutil.copytree(trained, verified, copy_function=_link)
    (run.out / "report.json").unlink(
        missing_ok=True
    )  # it vouches for the checkpoint before this one
    shutil.rmtree(run.checkpoint, ignore_errors=True)
    verified.rename(run.checkpoint)


def _link(source: str, target: str) -> None:
    """Nothing changes either file again: the model card, written later, is not among them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        flush(Path(target))


def _verified(
    run: Run,
    folder: Path,
    tokens: torch.Tensor,
    logits: torch.Tensor,
    *,
    timed: bool,
    cut: bool = False,
    rescaled: bool = False,
) -> verify.Examined:
    run.tracker.begin("verifying")
    return verify.check(
        folder,
        run.work / "probe.safetensors",
        tokens,
        logits,
        dense=run.source if run.spec.evaluation.baseline else None,
        timed=timed,
        cut=cut,
        rescaled=rescaled,
        device=run.device,
        on_progress=run.tracker.part,
        alive=run.tracker.waiting,
    )


def _prune_blocks(run: Run, walk: Walk) -> None:
    def block_done(index: int, report: BlockReport | None) -> None:
        run.tracker.step(index + 1, report, replayed=report is None)

    run.tracker.begin("pruning", run.facts.blocks)
    walk.run(block_done)


def _save(run: Run, walk: Walk, units: UnitWalk | None, target: Path) -> int:
    """Write the checkpoint and return the bytes of its tensors."""
    blocks = [walk.ledger.path(index) for index in range(run.facts.blocks)]
    changes = units.changes(run) if units is not None else UNCHANGED
    return checkpoint.write(
        run.source,
        run.facts,
        [*blocks, *changes.files],
        target,
        shard_bytes=run.spec.output.shard_bytes,
        changes=changes,
        on_progress=lambda done, total: run.tracker.part(done, total, "byte"),
    )
