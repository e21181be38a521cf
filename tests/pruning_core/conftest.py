"""What tests of the core share."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pruning_core.runs import save_with_biases


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by type, each made once."""
    root = tmp_path_factory.mktemp("dense")

    @functools.cache
    def made(model_type: str) -> Path:
        return save_with_biases(root / model_type, model_type)

    return made


@pytest.fixture(autouse=True, scope="package")
def warm(python: str) -> Iterator[None]:
    """Start the processes of runs quickly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", python)
        yield
