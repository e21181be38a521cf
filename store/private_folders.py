"""Folders of the service's own: what users sent and what their models became, for nobody else whatever the umask."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pruning_core.system.files import flush

OWN_FILE: Final = 0o600
OWN_FOLDER: Final = 0o700


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on disk before the next."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=OWN_FOLDER, exist_ok=True)
    flush(folder.parent)
