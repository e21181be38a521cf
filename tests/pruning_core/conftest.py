"""What tests of the core share."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pruning_core.runs import save_with_biases
from tests.warm.python import warm_python


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models by type, each made once."""
    root = tmp_path_factory.mktemp("dense")

    @functools.cache
    def made(model_type: str) -> Path:
        return save_with_biases(root / model_type, model_type)

    return made


@pytest.fixture(autouse=True, scope="package")
def warm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fork the fresh processes of runs from one that has imported torch and transformers, unless `--cold`."""
    if request.config.getoption("--cold"):
        yield
        return
    shared = hasattr(request.config, "workerinput")  # all processes of a session have one server
    root = tmp_path_factory.getbasetemp()
    folder, owner = (root.parent, os.getppid()) if shared else (root, os.getpid())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(warm_python(folder, owner)))
        yield
