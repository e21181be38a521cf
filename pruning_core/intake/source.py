"""Which local paths a request may name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pruning_core.errors import ModelNotAllowed, ModelNotFound


def allowed_path(path: Path, roots: Sequence[Path]) -> Path:
    """Return the real path of `path`, which must lie below one of `roots` with every symbolic link followed.

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
        found = real.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links
        raise ModelNotFound(f"{path} is no usable path: {error}") from None
    if not below_any(real, roots):
        raise ModelNotAllowed(f"{path} lies outside the folders that this server allows")
    if not found:
        raise ModelNotFound(f"{path} does not exist on this server")
    return real


def below_any(real: Path, roots: Sequence[Path]) -> bool:
    """Tell whether a resolved path lies below one of the roots."""
    return any(real.is_relative_to(root.resolve()) for root in roots)
