"""Models from the hub: the revision is resolved to a commit, then safetensors and tokenizer files are fetched."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from huggingface_hub import hf_hub_download
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # which has no __all__

from pruning_core import settings
from pruning_core.checkpoints import companions
from pruning_core.checkpoints.config import read_config
from pruning_core.checkpoints.weight_files import (
    CONFIG,
    INDEX,
    MAX_INDEX_BYTES,
    SINGLE,
    chosen,
    is_index,
    parse_index,
    require_config,
)
from pruning_core.errors import DiskFull, HubUnavailable
from pruning_core.fetch.hub_client import (
    DESCRIPTION_SECONDS,
    BrokenReply,
    describe,
    no_other_error,
    session,
)
from pruning_core.fetch.hub_model import READERS, hub_errors
from pruning_core.system.files import is_disk_full, sha256

_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
PATTERNS = [CONFIG, SINGLE, INDEX, "model-?????-of-?????.safetensors", *companions.PATTERNS]
"""What a model consists of as stock transformers saves it; of its weights only those are fetched that are read."""


def folder_of(repo: str, cache_dir: Path) -> Path:
    """Return where all that is fetched of a repository lies."""
    return cache_dir / "hub" / repo_folder_name(repo_id=repo, repo_type="model")


def download(repo: str, revision: str | None, cache_dir: Path) -> tuple[Path, str]:
    """Return the local folder and the commit that the revision meant; interrupted downloads go on.

    Raises:
        ModelNotFound, ModelGated, ModelInvalid, UnsafePickle, UnsupportedModel: what the user can mend.
        HubUnavailable: the hub does not answer; a later attempt may succeed.
    """
    with _errors(repo, revision), no_other_error():
        deadline = time.monotonic() + DESCRIPTION_SECONDS
        description = describe("models", repo, revision, deadline=deadline)
        fetch = functools.partial(_fetch, repo, description.commit, cache_dir / "hub")
        names = list(description.names)
        weights = _weights(repo, names, fetch)
        others = set(_others(names, weights))
        beside = filter_repo_objects(names, allow_patterns=PATTERNS)
        wanted = {CONFIG, *weights, *(name for name in beside if name not in others)}
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(fetch, sorted(wanted)))
        return fetch(CONFIG).parent, description.commit


def _fetch(repo: str, commit: str, cache: Path, name: str) -> Path:
    """Return where a file lies, whole, in the cache of this commit."""
    session()  # whose replies are checked
    again = False
    while True:
        path = Path(
            hf_hub_download(
                repo,
                name,
                revision=commit,
                cache_dir=cache,
                endpoint=settings.hub_address(),
                force_download=again,
            )
        )
        if not path.as_posix().endswith(f"/snapshots/{commit}/{name}"):
            raise BrokenReply("it sends a file of another commit")
        if _is_whole(path):
            return path
        if again:
            raise BrokenReply(f"{name} is not the file that the hub says it is")
        again = True


def _is_whole(path: Path) -> bool:
    """Tell whether a file is what it is tagged with, as the cache names it: sha256 of the content, or git's digest of it."""
    tag = Path(os.readlink(path)).name if path.is_symlink() else ""
    if _SHA256.fullmatch(tag):
        return sha256(path) == tag
    if _GIT.fullmatch(tag):
        content = path.read_bytes()
        head = f"blob {len(content)}\0".encode()
        return hashlib.sha1(head + content, usedforsecurity=False).hexdigest() == tag
    return True


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
