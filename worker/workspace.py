"""The folders of one job on this machine: one per attempt, so that no zombie shares a file with its successor."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from pruning_core.system.files import link_or_copy
from store.artifacts import REPORT_PAGE
from worker.protocol import CHECKPOINT_FOLDER, REPORT_FILE, WORK_FOLDER

LEDGER = f"{WORK_FOLDER}/ledger.json"
BLOCKS = (f"{WORK_FOLDER}/block-*.safetensors",)
RESULT = (f"{CHECKPOINT_FOLDER}/**/*", REPORT_PAGE)
DECIDED = (
    f"{WORK_FOLDER}/decided.json",
    f"{WORK_FOLDER}/units.safetensors",
    f"{WORK_FOLDER}/recovery/recovery-*",
    "self-*.safetensors",
)
"""What was found before the first block (searches, allocations, units, text sampled from the model), and training's state."""
TRAINING_REPORT = f"{WORK_FOLDER}/recovery/recovered.json"
"""The last file that a finished training writes."""
TRAINED = (f"{WORK_FOLDER}/recovery/recovered*", f"{WORK_FOLDER}/recovery/recovered/**/*")
_EPOCH = re.compile(r"^e([0-9]+)$")


class Workspace:
    """`work_dir/<job>/e<epoch>/`, with the resumable state in `work/` inside."""

    def __init__(self, work_dir: Path, job_id: str) -> None:
        self.root = work_dir / job_id

    def folder(self, epoch: int) -> Path:
        """Return the folder of one attempt."""
        return self.root / f"e{epoch}"

    def epochs(self) -> list[int]:
        """Return the epochs that have a folder here, oldest first."""
        if not self.root.is_dir():
            return []
        matches = (_EPOCH.match(entry.name) for entry in self.root.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def prepare(self, epoch: int) -> Path:
        """Make the attempt's folder, complete with what the last attempt had finished, in one rename."""
        earlier = [known for known in self.epochs() if known < epoch]
        draft = self.root / f"e{epoch}.tmp"
        (draft / WORK_FOLDER).mkdir(parents=True)
        for known in reversed(earlier):
            if _adopt(self.folder(known), draft):
                break
        draft.rename(self.folder(epoch))
        for known in earlier:
            shutil.rmtree(self.folder(known), ignore_errors=True)
        return self.folder(epoch)

    def remove(self) -> None:
        """Delete everything of this job."""
        shutil.rmtree(self.root, ignore_errors=True)


def _adopt(source: Path, target: Path) -> bool:
    """Take over the finished blocks, training or result of an earlier attempt; tell whether there was anything.

    A list is copied before the files that it lists are linked: those are complete and never change.
    """
    adopted = _link_all(source, target, DECIDED)
    if (source / TRAINING_REPORT).is_file():
        _link_all(source, target, TRAINED)
        adopted = True
    for listing, patterns in ((LEDGER, BLOCKS), (REPORT_FILE, RESULT)):
        if not (source / listing).is_file():
            continue
        shutil.copyfile(source / listing, target / listing)
        _link_all(source, target, patterns)
        adopted = True
    return adopted


def _link_all(source: Path, target: Path, patterns: Iterable[str]) -> bool:
    """Link what is complete: a zombie may still write to a file that ends in `.tmp`."""
    found = (file for pattern in patterns for file in source.glob(pattern))
    files = [file for file in found if file.is_file() and file.suffix != ".tmp"]
    for file in files:
        linked = target / file.relative_to(source)
        linked.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(file, linked)
    return bool(files)
