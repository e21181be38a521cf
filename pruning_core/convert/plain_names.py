"""Weights whose names carry the wrappers of training (`module.`, `_orig_mod.`), under the names that stock transformers knows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pruning_core.checkpoints.facts import inspect
from pruning_core.checkpoints.headers import format_header, read_header

_COPY_BYTES = 1 << 24


@contextmanager
def plainly_named(model: Path, folder: Path) -> Iterator[Path]:
    """Yield the model's folder, or where names are wrapped one in `folder` with weights of plain names, which goes at the end.

    Everything that opens the dense model, stock transformers too, then finds what it looks for. An index needs no
    change: it tells which files are read, and they say what they hold.

    Args:
        model: Folder of the dense model.
        folder: To make if need be; what an earlier process left there goes first.
    """
    shutil.rmtree(folder, ignore_errors=True)
    facts = inspect(model)
    if not facts.wrapped:
        yield model
        return
    target = folder / model.name
    try:
        target.mkdir(parents=True)
        plain = {stored: name for name, stored in facts.wrapped.items()}
        weights = set(facts.files.values())
        for entry in model.iterdir():
            if entry.name in weights:
                _rename(entry, target / entry.name, plain)
            else:
                (target / entry.name).symlink_to(entry.absolute())
        yield target
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rename(source: Path, target: Path, plain: Mapping[str, str]) -> None:
    """Copy a weight file, its tensors renamed; their bytes stay in their order."""
    tensors = sorted(read_header(source).items(), key=lambda entry: entry[1].offset)
    with source.open("rb") as file, target.open("wb") as output:
        file.seek(tensors[0][1].offset)
        output.write(format_header({plain.get(name, name): facts for name, facts in tensors}))
        shutil.copyfileobj(file, output, _COPY_BYTES)
