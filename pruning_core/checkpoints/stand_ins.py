"""Files that stand where another should be: pointers of Git LFS and git-annex, and web pages that were saved in its place."""

from __future__ import annotations

from pathlib import Path

from pruning_core.errors import ModelInvalid

HEAD_BYTES = 256
_LFS = (b"version https://git-lfs.github.com/", b"version https://hawser.github.com/")
_PAGES = (b"<!doctype html", b"<html")


def refuse_stand_in(name: str, head: bytes) -> None:
    """Refuse a file that begins like one that only stands for another.

    Args:
        name: Of the file.
        head: Its first bytes, `HEAD_BYTES` of them at least or all.

    Raises:
        ModelInvalid: with what fetches the file itself.
    """
    start = head[:HEAD_BYTES].lstrip()
    if start.startswith(_LFS):
        raise ModelInvalid(
            f"{name} is a Git LFS pointer: the file itself was never fetched.",
            suggestions=("run `git lfs install` and `git lfs pull` in the model's folder",),
        )
    if start.startswith(b"/annex/objects/"):
        raise ModelInvalid(
            f"{name} is a git-annex pointer: the file itself was never fetched.",
            suggestions=("run `git annex get .` in the model's folder",),
        )
    if start.lower().startswith(_PAGES):
        raise ModelInvalid(
            f"{name} is a web page that was saved under this name.",
            suggestions=("download the file itself, with `hf download` for example",),
        )


def refuse_stand_in_at(path: Path) -> None:
    """Refuse a file on this machine that only stands for another."""
    with path.open("rb") as file:
        refuse_stand_in(path.name, file.read(HEAD_BYTES))
