"""What becomes of a checkpoint once it is written: checked, rounded, written as GGUF, published."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from pruning_core.convert import rounding, to_gguf
from pruning_core.convert.gguf_vocabulary import check_vocabulary
from pruning_core.evaluate import verify
from pruning_core.gguf.writable import names_of, table_of
from pruning_core.pipeline.run import Run
from pruning_core.spec.output import RoundedDtype
from pruning_core.spec.report_parts.files import GgufReport, RoundingReport
from pruning_core.system import run_folder
from pruning_core.system.files import flush, link_or_copy


def rounded_dtype(run: Run) -> RoundedDtype | None:
    """Return the type that all weights are rounded to, None where they keep theirs."""
    asked = run.spec.output.rounds_to(gguf=run.facts.gguf is not None)
    return rounding.needed(run.facts, asked)


def check_gguf(run: Run) -> None:
    """Refuse a model that cannot be written as GGUF, before any work is done."""
    table = table_of(run.facts.config)
    names_of(run.facts.config, table, run.facts.tensors)
    check_vocabulary(run.source, _pre(run))


@dataclass(frozen=True)
class Probed:
    """A checkpoint, and what it must answer.

    Attributes:
        folder: The checkpoint.
        tokens: int64 [1, seq], as the checkpoint numbers them.
        logits: [1, seq, vocabulary], those of the model in memory.
    """

    folder: Path
    tokens: torch.Tensor
    logits: torch.Tensor


def verified(
    run: Run, result: Probed, *, timed: bool, cut: bool = False, rescaled: bool = False
) -> verify.Examined:
    """Return what a fresh process makes of a checkpoint: it answers as the model in memory did.

    Args:
        run: The run.
        result: The checkpoint.
        timed: Whether its speed is measured beside the dense model's.
        cut: Whether its tensors are smaller than the dense model's.
        rescaled: Whether it is a little off by design.
    """
    run.tracker.begin("verifying")
    return verify.check(
        result.folder,
        run.work / "probe.safetensors",
        result.tokens,
        result.logits,
        dense=run.source if run.spec.evaluation.baseline else None,
        timed=timed,
        cut=cut,
        rescaled=rescaled,
        device=run.device,
        on_progress=run.tracker.part,
        alive=run.tracker.waiting,
    )


def rounded(run: Run, result: Probed, dtype: RoundedDtype) -> tuple[Path, int, RoundingReport]:
    """Round a verified checkpoint's weights.

    Returns:
        The folder of the result, the bytes of its tensors, and what rounding did.
    """
    run.tracker.begin("saving", key="rounding")
    target = run.work / "rounded"
    written = rounding.write(result.folder, target, dtype, run.tracker.alive)
    run.tracker.begin("verifying", key="verifying_rounded")
    examined = verify.check(
        target,
        run.work / "probe.safetensors",
        result.tokens,
        result.logits,
        rounded=True,
        device=run.device,
        alive=run.tracker.alive,
    )
    difference = examined.verification.max_logit_difference
    return target, written.bytes, written.report(dtype, difference)


def as_gguf(run: Run, folder: Path) -> tuple[Path, GgufReport] | None:
    """Write a verified checkpoint as GGUF too, where that is asked for, and return the file."""
    kind = run.spec.output.gguf
    if kind is None:
        return None
    run.tracker.begin("saving", key="gguf")
    path = run.work / to_gguf.file_name(kind)
    report = to_gguf.write(folder, path, kind, _pre(run), run.tracker.alive)
    flush(path)
    return path, report


def publish(run: Run, folder: Path) -> None:
    """Make a folder the run's checkpoint; a trained one stays in `work` too, for a run that is cut short hereafter."""
    if run.spec.recovery is not None:
        # Both share their files, which nothing changes again: the model card, written later, is not among them.
        trained, folder = folder, run.work / "linked"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(trained, folder, copy_function=link_or_copy)
    # It vouches for the checkpoint before this one
    (run.out / run_folder.REPORT).unlink(missing_ok=True)
    shutil.rmtree(run.checkpoint, ignore_errors=True)
    folder.rename(run.checkpoint)


def _pre(run: Run) -> str | None:
    return run.facts.gguf.pre if run.facts.gguf else None
