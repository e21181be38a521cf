"""Configuration and tensors of a model on the hub, from the heads of its files: no weight is fetched, nothing is stored."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from pruning_core import settings
from pruning_core.checkpoints.config import MAX_CONFIG_BYTES, parse_config
from pruning_core.checkpoints.facts import CheckpointFacts, facts_of
from pruning_core.checkpoints.headers import (
    PREFIX_BYTES,
    TensorFacts,
    check_total,
    header_length,
    parse_header,
)
from pruning_core.checkpoints.weight_files import (
    CONFIG,
    MAX_INDEX_BYTES,
    chosen,
    is_index,
    merged,
    parse_index,
    require_config,
)
from pruning_core.errors import HubUnavailable, ModelGated, ModelNotFound
from pruning_core.fetch.hub_client import describe, fetched, no_other_error

TOTAL_SECONDS = 25.0
READERS = 8
_SIZE = re.compile(r"[0-9]{1,18}")
FIRST_BYTES = 1 << 16
"""Fetched of every file at first; it holds the header of most."""


def inspect(
    repo: str, revision: str | None, *, seconds: float | None = None
) -> tuple[CheckpointFacts, str]:
    """Return the facts of a model on the hub, and the commit that the revision means.

    Args:
        repo: `org/name`.
        revision: Branch, tag or commit; None for the main branch.
        seconds: How long all of it may take; None for `TOTAL_SECONDS`.

    Raises:
        ModelNotFound, ModelGated, ModelInvalid, UnsafePickle, UnsupportedModel: what the user can mend.
        HubUnavailable: the hub does not answer in time, or is switched off.
    """
    if settings.hub_offline():
        raise HubUnavailable("The hub is switched off here (HF_HUB_OFFLINE).")
    deadline = time.monotonic() + (TOTAL_SECONDS if seconds is None else seconds)
    with hub_errors(repo, revision), no_other_error():
        description = describe("models", repo, revision, deadline=deadline)
        repository = _Repository(repo, description.commit, set(description.names), deadline)
        return repository.facts(), description.commit


@dataclass(frozen=True)
class _Repository:
    """One commit of a model.

    Attributes:
        repo: Its name.
        commit: Which.
        names: Its files.
        deadline: By the monotonic clock.
    """

    repo: str
    commit: str
    names: set[str]
    deadline: float

    def facts(self) -> CheckpointFacts:
        """Return what configuration and headers say."""
        require_config(self.repo, self.names)
        config = parse_config(self._head(CONFIG, MAX_CONFIG_BYTES + 1)[0])
        first = chosen(self.repo, self.names, config)
        if not is_index(first):
            return facts_of(config, merged(self._headers([first])))
        raw, _ = self._head(first, MAX_INDEX_BYTES + 1)
        index = parse_index(first, raw, self.names)
        return facts_of(config, merged(self._headers(index.shards), index))

    def _headers(self, files: Sequence[str]) -> dict[str, dict[str, TensorFacts]]:
        """Return the tensors of each file; all headers together are as long as one may be."""
        with ThreadPoolExecutor(READERS) as pool:
            heads = list(pool.map(self._head, files, repeat(FIRST_BYTES)))
            lengths = [header_length(name, *head) for name, head in zip(files, heads, strict=True)]
            check_total(self.repo, lengths)
            ends = [PREFIX_BYTES + length for length in lengths]
            heads = list(pool.map(self._longer, files, heads, ends))
        return {
            name: parse_header(name, raw[PREFIX_BYTES:end], size)
            for name, (raw, size), end in zip(files, heads, ends, strict=True)
        }

    def _longer(self, name: str, head: tuple[bytes, int], end: int) -> tuple[bytes, int]:
        return head if end <= FIRST_BYTES else self._head(name, end)

    def _head(self, name: str, count: int) -> tuple[bytes, int]:
        """Return the first bytes of a file, no more than `count`, and its size."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.repo, name, revision=self.commit, endpoint=settings.hub_address())
        asked = {"Range": f"bytes=0-{count - 1}"}
        content, headers = fetched(url, count, deadline=self.deadline, headers=asked)
        return content, self._size(name, headers)

    def _size(self, name: str, headers: Any) -> int:
        """Return the size of a file of which all was sent, or a range."""
        total = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length")
        if total is None or not _SIZE.fullmatch(total):
            raise HubUnavailable(f"The hub does not say how large {name} of {self.repo} is.")
        return int(total)


@contextmanager
def hub_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's library raises into errors of ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelGated(
            f"{repo} is gated: accept its licence on the hub and give the service a token (HF_TOKEN)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{repo} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(f"{repo} does not exist on the hub, or is private") from error
    except (OSError, errors.HTTPError, errors.OfflineModeIsEnabled) as error:  # type: ignore[attr-defined]  # of its HTTP library
        raise HubUnavailable(f"The model hub cannot be reached for {repo}: {error}") from error
