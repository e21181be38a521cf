"""Which local paths a request may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pruning_core.errors import ModelNotAllowed, ModelNotFound


def allowed_path(path: Path, roots: Sequence[Path]) -> tuple[Path, Path]:
    """Return the real path of `path`, and the one of `roots` that it lies below with every symbolic link followed.

    Raises:
        ModelNotAllowed: no root is configured, or the path (or what it links to) lies outside all of them.
        ModelNotFound: nothing is there.
    """
    if not roots:
        raise ModelNotAllowed(
            "This server allows no local models: its operator sets SECATEUR_MODEL_ROOTS to the folders that hold them."
        )
    if ".." in path.parts:
        raise ModelNotAllowed(f"{path} contains '..': give the path itself")
    try:
        real = path.resolve()
        exists = real.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links
        raise ModelNotFound(f"{path} is no usable path: {error}") from None
    root = next((root for root in roots if real.is_relative_to(root.resolve())), None)
    if root is None:
        raise ModelNotAllowed(f"{path} lies outside the folders that this server allows")
    if not exists:
        raise ModelNotFound(f"{path} does not exist on this server")
    return real, root
