"""References to models: `hf://org/name@revision` and `file:///absolute/path`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from pydantic import Field, field_validator, model_validator

from pruning_core.printable import plain
from pruning_core.spec.base import Frozen

REVISION = r"[A-Za-z0-9_.\-/]{1,128}"
_HUB = re.compile(
    rf"hf://(?P<repo>[A-Za-z0-9][\w.\-]{{0,95}}(/[A-Za-z0-9][\w.\-]{{0,95}})?)(@(?P<revision>{REVISION}))?",
    re.ASCII,
)
_FILE = re.compile(r"file://(?P<path>/.+)")


class ModelRef(Frozen):
    """Where the dense model comes from. Weights are read from safetensors or GGUF only, never from pickle."""

    ref: str = Field(max_length=4096)
    """`hf://org/name`, or `file:///path` to a Hugging Face folder or a GGUF file below a root that the operator allows."""
    revision: str | None = Field(default=None, pattern=f"^{REVISION}$")
    """Branch, tag or commit on the hub; `hf://org/name@revision` says the same. The commit it meant is recorded."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        data = {"ref": data} if isinstance(data, str) else data
        if not isinstance(data, dict) or not isinstance(data.get("ref"), str):
            return data
        match = _HUB.fullmatch(data["ref"])
        if match is None or match["revision"] is None:
            return data
        if data.get("revision") not in (None, match["revision"]):
            raise ValueError("the revision is given twice, and differently")
        return {**data, "ref": f"hf://{match['repo']}", "revision": match["revision"]}

    @field_validator("ref")
    @classmethod
    def _known_scheme(cls, ref: str) -> str:
        repo = _HUB.fullmatch(ref)
        odd = repo is not None and (
            "--" in repo["repo"] or ".." in repo["repo"] or repo["repo"].endswith(".git")
        )
        if odd or not (repo or _FILE.fullmatch(ref)):
            raise ValueError(
                "a model is `hf://org/name`, `hf://org/name@revision` or `file:///absolute/path`"
            )
        plain(unquote(ref))
        return ref

    @model_validator(mode="after")
    def _revision_of_hub_only(self) -> Self:
        if self.revision is not None and self.repo is None:
            raise ValueError("only `hf://` models have a revision")
        if ".." in (self.revision or ""):
            raise ValueError("a revision is a branch, a tag or a commit: none holds `..`")
        return self

    @property
    def repo(self) -> str | None:
        """`org/name` on the hub, or None."""
        match = _HUB.fullmatch(self.ref)
        return match["repo"] if match else None

    @property
    def path(self) -> Path | None:
        """Absolute local path, or None."""
        match = _FILE.fullmatch(self.ref)
        return Path(unquote(match["path"])) if match else None
