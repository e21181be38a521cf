"""Configuration and tensors of a model on the hub, from the heads of its files: no weight is fetched, nothing is stored."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from pruning_core import settings
from pruning_core.errors import HubUnavailable, ModelGated, ModelNotFound
from pruning_core.intake.checkpoint import CheckpointFacts, facts_of
from pruning_core.intake.config import MAX_CONFIG_BYTES, parse_config
from pruning_core.intake.headers import (
    PREFIX_BYTES,
    TensorFacts,
    check_total,
    header_length,
    parse_header,
)
from pruning_core.intake.weights import (
    CONFIG,
    MAX_INDEX_BYTES,
    chosen,
    is_index,
    merged,
    parse_index,
    require_config,
)

ANSWER_SECONDS = 10.0
"""Without a byte for so long the hub counts as away."""
TOTAL_SECONDS = 25.0
READERS = 8
FIRST_BYTES = 1 << 16
"""Fetched of every file at first; it holds the header of most."""


def inspect(repo: str, revision: str | None) -> tuple[CheckpointFacts, str]:
    """Return the facts of a model on the hub, and the commit that the revision means.

    Raises:
        ModelNotFound, ModelGated, ModelInvalid, UnsafePickle, UnsupportedModel: what the user can mend.
        HubUnavailable: the hub does not answer in time, or is switched off.
    """
    if settings.hub_offline():
        raise HubUnavailable("The hub is switched off here (HF_HUB_OFFLINE).")
    from huggingface_hub import HfApi

    deadline = time.monotonic() + TOTAL_SECONDS
    with hub_errors(repo, revision):
        api = HfApi(endpoint=settings.hub_address())
        info = api.model_info(repo, revision=revision, timeout=ANSWER_SECONDS)
        assert info.sha is not None
        names = {sibling.rfilename for sibling in info.siblings or []}
        return _Repository(repo, info.sha, names, deadline).facts(), info.sha


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
        files = [first]
        if is_index(first):
            raw, _ = self._head(first, MAX_INDEX_BYTES + 1)
            files = parse_index(first, raw, self.names).shards
        return facts_of(config, *merged(self._headers(files)))

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
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # which has no __all__
            build_hf_headers,
            get_session,
            hf_raise_for_status,
        )

        url = hf_hub_url(self.repo, name, revision=self.commit, endpoint=settings.hub_address())
        asked = {"Range": f"bytes=0-{count - 1}", "Accept-Encoding": "identity"}
        headers = build_hf_headers(headers=asked)
        content = bytearray()
        self._check_time()
        with get_session().stream("GET", url, headers=headers, timeout=ANSWER_SECONDS) as response:
            hf_raise_for_status(response)
            for piece in response.iter_bytes(FIRST_BYTES):
                content += piece
                if len(content) >= count:
                    break
                self._check_time()
            return bytes(content[:count]), self._size(name, response.headers)

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise HubUnavailable(f"The hub takes too long over {self.repo}.")

    def _size(self, name: str, headers: Any) -> int:
        """Return the size of a file of which all was sent, or a range."""
        total = headers.get("content-range", "").rpartition("/")[2] or headers.get("content-length")
        if total is None or not total.isdecimal():
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
