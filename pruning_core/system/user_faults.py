"""What libraries raise over a file that its user made, as an error that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pruning_core.errors import ModelInvalid, PruningError

_TOLD = 500
_NOT_OF_THE_FILE = (KeyboardInterrupt, GeneratorExit, MemoryError, PruningError)


@contextmanager
def blamed_on(what: str, error: type[PruningError] = ModelInvalid) -> Iterator[None]:
    """Turn whatever is raised into `error`, with `what` in front.

    That is more than `Exception`: a panic of a library in Rust arrives as a `BaseException`, and a parser may
    exhaust the stack or call `sys.exit`. An interrupt, exhausted memory, and what is an error of ours, pass.
    """
    try:
        yield
    except _NOT_OF_THE_FILE:
        raise
    except BaseException as cause:
        raise error(f"{what}: {_told(cause)}") from cause


def _told(cause: BaseException) -> str:
    return str(cause)[:_TOLD] or type(cause).__name__
