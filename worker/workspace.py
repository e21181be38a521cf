"""The folders of one job on this machine: one per attempt, so that no zombie shares a file with its successor."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from pruning_core.system import run_folder

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
        (draft / run_folder.WORK).mkdir(parents=True)
        for known in reversed(earlier):
            if run_folder.take_over(self.folder(known), draft):
                break
        draft.rename(self.folder(epoch))
        for known in earlier:
            shutil.rmtree(self.folder(known), ignore_errors=True)
        return self.folder(epoch)

    def remove(self) -> None:
        """Delete everything of this job."""
        shutil.rmtree(self.root, ignore_errors=True)
