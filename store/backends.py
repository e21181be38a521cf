"""Which artifact store the settings ask for."""

from __future__ import annotations

from store.artifact_store import ArtifactStore
from store.drafts import Drafts
from store.local_artifacts import LocalArtifacts
from store.settings import Settings


def artifacts_of(settings: Settings) -> ArtifactStore:
    """Return where results and uploads are kept."""
    return LocalArtifacts(settings.artifacts_dir, drafts_of(settings))


def drafts_of(settings: Settings) -> Drafts:
    """Return where files wait to be put: where a link is enough to keep one."""
    return Drafts(settings.artifacts_dir / "drafts")
