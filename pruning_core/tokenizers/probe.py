"""Reads a `tokenizer.json` in a process of its own: a file that makes the library abort ends that process, not the job's.

Run as `python -m pruning_core.tokenizers.probe FILE`. What the library raises is met again, and told, where the
tokenizer is used.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pruning_core.errors import ModelInvalid
from pruning_core.system import subprocesses

SECONDS = 120.0
TEXT = "The most important thing about language is \u00e9, \u4f60."


def probe(path: Path, alive: Callable[[], None]) -> None:
    """Refuse a file that the library does not survive, or is busy with for minutes; call `alive` meanwhile.

    Raises:
        ModelInvalid: it does not.
    """
    deadline = time.monotonic() + SECONDS

    def in_time() -> None:
        alive()
        if time.monotonic() > deadline:
            raise ModelInvalid(f"{path.name} keeps the tokenizers library busy for {SECONDS:.0f} s")

    try:
        subprocesses.run(__name__, str(path), alive=in_time)
    except subprocesses.HelperFailed as error:
        raise ModelInvalid(f"{path.name} makes the tokenizers library abort: {error}") from None


def _read(path: str) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_padding()  # as stock transformers does before it encodes
    tokenizer.no_truncation()
    tokenizer.decode(tokenizer.encode(TEXT).ids)


if __name__ == "__main__":
    with suppress(BaseException):
        _read(sys.argv[1])
