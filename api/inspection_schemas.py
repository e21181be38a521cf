"""What `GET /v1/models/inspect` takes and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pruning_core.spec.model import REVISION, ModelRef


class InspectionQuery(BaseModel):
    """Query of `GET /v1/models/inspect`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    revision: str | None = Field(default=None, pattern=f"^{REVISION}$")
    """Branch, tag or commit on the hub; `hf://org/name@revision` says the same."""
    ref: str = Field(max_length=4096, examples=["hf://Qwen/Qwen3-0.6B@main"])
    """As a job names its model: `hf://org/name[@revision]` or `file:///path`."""
    multiple_of: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        default=[8, 64, 128], min_length=1, max_length=8
    )
    """As in a pattern of units; repeatable."""

    @field_validator("ref")
    @classmethod
    def _names_a_model(cls, ref: str, info: ValidationInfo) -> str:
        try:
            _model_ref(ref, info.data.get("revision"))
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return ref

    @property
    def model(self) -> ModelRef:
        """The model that is meant."""
        return _model_ref(self.ref, self.revision)


def _model_ref(ref: str, revision: str | None) -> ModelRef:
    return ModelRef.model_validate({"ref": ref, "revision": revision})


class KeptSize(BaseModel):
    """How many units may be kept."""

    size: int
    share: float = Field(description="Of the model's parameters, that this removes.")


class KeptSizes(BaseModel):
    """All numbers of units that may be kept, for one `multiple_of`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    multiple_of: int | None
    """Null for units that it does not concern."""
    count: int
    start: int | None = Field(serialization_alias="from")
    """The smallest."""
    stop: int | None = Field(serialization_alias="to")
    """The largest."""
    step: int | None
    """From each to the next; null where it differs."""
    sizes: list[KeptSize] | None
    """Each of them; null where they are many and `from`, `to` and `step` say it."""


class Axis(BaseModel):
    """One kind of units of a model."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str = Field(examples=["kv_groups"])
    title: str = Field(examples=["key-value groups per block"])
    size: int
    """How many there are, of one block for neurons and key-value groups."""
    unit_parameters: int
    """That one of them takes from the whole model: one in every block, for neurons and key-value groups."""
    largest_share: float
    """Of the model's parameters, that removing these units alone can take, at the smallest `multiple_of`."""
    removable: bool
    reason: str | None
    """Why not."""
    rule: str | None
    """What decides which sizes can be had."""
    kept: list[KeptSizes]


class MethodFit(BaseModel):
    """Whether a method that removes units has any to remove."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    possible: bool
    units: list[str]
    """Those that it can be asked to remove from this model."""
    reason: str | None
    """Why others cannot go."""


class Inspection(BaseModel):
    """A model as its configuration and headers describe it, and what can be cut from it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    object: Literal["model.inspection"] = "model.inspection"
    ref: str
    revision: str | None
    commit: str | None
    """That the revision means on the hub now."""
    architecture: str
    model_type: str
    family: str
    parameters: int
    bytes: int
    dtype: str = Field(examples=["BF16"])
    """Of most bytes."""
    blocks: int
    max_positions: int
    tied_embeddings: bool
    query_heads: int
    query_heads_per_group: int
    """That share a key-value head."""
    head_dim: int
    axes: list[Axis]
    methods: list[MethodFit]
    notes: list[str]
    """What else the file holds, and what becomes of it."""
