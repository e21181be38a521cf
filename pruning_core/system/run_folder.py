"""The folder of one run: what lies where, and what a later run in another folder can go on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pruning_core.system.files import link_or_copy

WORK: Final = "work"
CHECKPOINT: Final = "checkpoint"
REPORT: Final = "report.json"
PAGE: Final = "report.html"
SELF_GENERATED: Final = "self-{digest}.safetensors"

LEDGER: Final = "ledger.json"
BLOCK: Final = "block-{index:05d}.safetensors"
DECIDED: Final = "decided.json"
UNITS: Final = "units.safetensors"
RECOVERY: Final = "recovery"
"""Files of `work`."""

RECOVERY_JOB: Final = "recovery-job.json"
RECOVERY_TOKENS: Final = "recovery-tokens.safetensors"
RECOVERY_STATE: Final = "recovery-state.safetensors"
RECOVERED: Final = "recovered"
RECOVERED_PROBE: Final = "recovered-probe.safetensors"
RECOVERED_REPORT: Final = "recovered.json"
"""Files of `recovery`."""

BLOCKS: Final = "block-*.safetensors"


@dataclass(frozen=True)
class _Finished:
    """Files that count together.

    Attributes:
        files: Patterns; a file is written under another name and takes its own when it is whole, and never changes.
        listing: What is written last and vouches for them; without it they are worth nothing. None: each stands for itself.
    """

    files: tuple[str, ...]
    listing: str | None = None


_RESUMABLE: Final = (
    _Finished(
        (
            SELF_GENERATED.format(digest="*"),
            f"{WORK}/{DECIDED}",
            f"{WORK}/{UNITS}",
            f"{WORK}/{RECOVERY}/{RECOVERY_JOB}",
            f"{WORK}/{RECOVERY}/{RECOVERY_TOKENS}",
            f"{WORK}/{RECOVERY}/{RECOVERY_STATE}",
        )
    ),
    _Finished(
        (f"{WORK}/{RECOVERY}/{RECOVERED_PROBE}", f"{WORK}/{RECOVERY}/{RECOVERED}/**/*"),
        listing=f"{WORK}/{RECOVERY}/{RECOVERED_REPORT}",
    ),
    _Finished((f"{WORK}/{BLOCKS}",), listing=f"{WORK}/{LEDGER}"),
    _Finished((f"{CHECKPOINT}/**/*", PAGE), listing=REPORT),
)


def resumable(folder: Path) -> Iterator[Path]:
    """Yield the files of a run's folder that another run can go on from, those that list others before these.

    A run may still be at work there: what is half written is passed over.
    """
    for finished in _RESUMABLE:
        if finished.listing is not None:
            if not (folder / finished.listing).is_file():
                continue
            yield folder / finished.listing
        for pattern in finished.files:
            for path in folder.glob(pattern):
                if path.is_file() and path.suffix != ".tmp":
                    yield path


def take_over(source: Path, target: Path) -> bool:
    """Give a new folder what a run in `source` has finished; tell whether there was anything.

    A list is copied, and before the files that it lists are linked: those are whole and never change.
    """
    lists = {source / finished.listing for finished in _RESUMABLE if finished.listing}
    taken = False
    for path in resumable(source):
        own = target / path.relative_to(source)
        own.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copyfile if path in lists else link_or_copy)(path, own)
        taken = True
    return taken
