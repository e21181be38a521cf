"""Models from the hub: the revision is resolved to a commit, then safetensors and tokenizer files are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from pruning_core.engine.export import COMPANIONS
from pruning_core.engine.files import is_disk_full
from pruning_core.errors import DiskFull, HubUnavailable, ModelInvalid, UnsafePickle
from pruning_core.intake.hub_model import hub_errors

PATTERNS = ["config.json", "*.safetensors", "*.safetensors.index.json", *COMPANIONS]


def download(repo: str, revision: str | None, cache_dir: Path) -> tuple[Path, str]:
    """Return the local folder and the commit that the revision meant; interrupted downloads go on.

    Raises:
        ModelNotFound, ModelGated, ModelInvalid, UnsafePickle: what the user can mend.
        HubUnavailable: the hub does not answer; a later attempt may succeed.
    """
    with _errors(repo, revision):
        info = HfApi().model_info(repo, revision=revision)
        names = [sibling.rfilename for sibling in info.siblings or []]
        _refuse_pickle(repo, names)
        folder = snapshot_download(
            repo, revision=info.sha, cache_dir=cache_dir / "hub", allow_patterns=PATTERNS
        )
    assert info.sha is not None
    return Path(folder), info.sha


def _refuse_pickle(repo: str, names: list[str]) -> None:
    if any(name.endswith(".safetensors") for name in names):
        return
    if any(name.endswith((".bin", ".pt", ".pth", ".ckpt")) for name in names):
        raise UnsafePickle(
            f"{repo} holds pickled weights only, and a pickle can run any code.",
            suggestions=(
                "ask for a revision with safetensors (many hubs offer one as a pull request)",
            ),
        )
    raise ModelInvalid(f"{repo} holds no safetensors")


@contextmanager
def _errors(repo: str, revision: str | None) -> Iterator[None]:
    try:
        with hub_errors(repo, revision):
            yield
    except HubUnavailable as error:
        if error.__cause__ is not None and is_disk_full(error.__cause__):
            raise DiskFull(f"The disk is full of {repo}: free space and submit again.") from error
        raise
