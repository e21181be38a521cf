"""Models from the hub: the revision is resolved to a commit, then safetensors and tokenizer files are fetched."""

from __future__ import annotations

import functools
import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, hf_hub_download, snapshot_download

from pruning_core.engine.files import is_disk_full
from pruning_core.errors import DiskFull, HubUnavailable
from pruning_core.intake import companions
from pruning_core.intake.config import read_config
from pruning_core.intake.hub_model import hub_errors
from pruning_core.intake.weights import (
    CONFIG,
    INDEX,
    MAX_INDEX_BYTES,
    SINGLE,
    chosen,
    is_index,
    parse_index,
    require_config,
)

PATTERNS = [CONFIG, SINGLE, INDEX, "model-?????-of-?????.safetensors", *companions.PATTERNS]
"""What a model consists of as stock transformers saves it; of its weights only those are fetched that are read."""


def download(repo: str, revision: str | None, cache_dir: Path) -> tuple[Path, str]:
    """Return the local folder and the commit that the revision meant; interrupted downloads go on.

    Raises:
        ModelNotFound, ModelGated, ModelInvalid, UnsafePickle, UnsupportedModel: what the user can mend.
        HubUnavailable: the hub does not answer; a later attempt may succeed.
    """
    with _errors(repo, revision):
        info = HfApi().model_info(repo, revision=revision)
        assert info.sha is not None
        names = [sibling.rfilename for sibling in info.siblings or []]
        fetch = functools.partial(
            hf_hub_download, repo, revision=info.sha, cache_dir=cache_dir / "hub"
        )
        weights = _weights(repo, names, lambda name: Path(fetch(name)))
        folder = snapshot_download(
            repo,
            revision=info.sha,
            cache_dir=cache_dir / "hub",
            allow_patterns=[*PATTERNS, *map(glob.escape, weights)],
            ignore_patterns=[glob.escape(name) for name in _others(names, weights)],
        )
    return Path(folder), info.sha


def _weights(repo: str, names: list[str], fetch: Callable[[str], Path]) -> list[str]:
    """Return the files that hold the model, its index among them."""
    require_config(repo, names)
    first = chosen(repo, names, read_config(fetch(CONFIG).parent))
    if not is_index(first):
        return [first]
    with fetch(first).open("rb") as file:
        return [first, *parse_index(first, file.read(MAX_INDEX_BYTES + 1), names).shards]


def _others(names: Iterable[str], weights: Sequence[str]) -> list[str]:
    """Return the weights and indices that are not read."""
    return [
        name for name in names if ".safetensors" in PurePosixPath(name).name and name not in weights
    ]


@contextmanager
def _errors(repo: str, revision: str | None) -> Iterator[None]:
    try:
        with hub_errors(repo, revision):
            yield
    except HubUnavailable as error:
        if error.__cause__ is not None and is_disk_full(error.__cause__):
            raise DiskFull(f"The disk is full of {repo}: free space and submit again.") from error
        raise
