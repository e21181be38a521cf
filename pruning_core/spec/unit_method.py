"""What the rest of the product may ask of a method that removes whole units: its facts, each a property of its class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from pruning_core.spec.base import Frozen
from pruning_core.spec.composition import Refit, Ridge
from pruning_core.spec.patterns import PatternName, Units

UnitKind = Literal["hidden", "neurons", "kv_groups", "layers", "vocabulary"]
"""What can be removed whole: residual dimensions, feed-forward neurons, key-value heads with their query heads, blocks, tokens."""
InnerKind = Literal["kv_groups", "neurons"]
Inner = tuple[InnerKind, ...]
INNER: Inner = ("kv_groups", "neurons")
"""Units within a block."""
UNIT_NAMES: dict[UnitKind, str] = {
    "hidden": "residual dimensions",
    "neurons": "neurons per feed-forward",
    "kv_groups": "key-value groups per block",
    "layers": "blocks",
    "vocabulary": "tokens",
}
"""How people call them."""


def inner_kinds(kinds: Sequence[UnitKind]) -> Inner:
    """Return the kinds that lie within a block, in one order."""
    return tuple(kind for kind in INNER if kind in kinds)


@dataclass(frozen=True)
class ModelShape:
    """What a method may refuse a model for.

    Attributes:
        model_type: Of the configuration.
        blocks: How many there are.
        routes: Whether tokens go to different experts.
        with_bias: The units whose read-out has a bias.
        before: Units of each kind per block.
        after: The same, once the job is done.
    """

    model_type: str
    blocks: int
    routes: bool
    with_bias: frozenset[InnerKind]
    before: Mapping[InnerKind, int]
    after: Mapping[InnerKind, int]


class UnitMethod(Frozen):
    """What the catalogue knows of a method that removes whole units."""

    kind: ClassVar[Literal["units"]] = "units"
    summary: ClassVar[str]
    source: ClassVar[str]
    name: str
    needs_calibration: ClassVar[bool] = True
    patterns: ClassVar[tuple[PatternName, ...]] = ("units",)
    default_pattern: ClassVar[PatternName] = "units"
    default_samples: ClassVar[int | None] = None
    output: ClassVar[str] = "smaller, faster dense safetensors of the source's dtype"
    removable: ClassVar[tuple[UnitKind, ...]]
    """Every kind of unit that its parameters can ask for."""

    @property
    @abstractmethod
    def unit_kinds(self) -> tuple[UnitKind, ...]:
        """The units that it removes, at one common share."""

    @property
    def compares_heads(self) -> bool:
        """Whether attention probabilities are needed."""
        return False

    @property
    def keeps_means(self) -> bool:
        """Whether the mean output of what goes moves into the read-out's bias, where there is one."""
        return False

    @property
    def decides_amount(self) -> bool:
        """Whether its own parameters say how much goes, in place of `sparsity` or a budget."""
        return False

    @property
    def needs_amount(self) -> bool:
        """Whether a job must say how much goes, by `sparsity`, a budget or the method's own parameters."""
        return True

    @property
    def fits_modules(self) -> Ridge | None:
        """The ridge by which every module is fitted to the dense model before it is scored; None where none is."""
        return None

    @property
    def rescales(self) -> bool:
        """Whether norms and embeddings make up for residual dimensions that go."""
        return True

    @property
    def masks_by_block(self) -> bool:
        """Whether every block loses residual dimensions of its own."""
        return False

    @property
    def zeroes_single_rows(self) -> bool:
        """Whether single rows and columns become zero in `mode: zero`, which no unit counts."""
        return False

    def blocks_touched(self, blocks: int) -> range:
        """Return the blocks that lose units within them, of so many."""
        return range(blocks)

    def check(self, pattern: Units, refit: Refit | None) -> None:
        """Refuse what does not go together.

        Raises:
            ValueError: the pattern or the refit cannot be had with these parameters.
        """

    def check_model(self, shape: ModelShape) -> None:
        """Refuse a model that this cannot be done to.

        Raises:
            UnitsUnsupported: not with these parameters.
            SizeUnreachable: not so much of it.
        """


class InnerMethod(UnitMethod):
    """A method that removes key-value groups, neurons, or both."""

    removable = INNER
    units: Inner = Field(default=INNER, min_length=1, max_length=2)
    """`kv_groups`: key-value heads with their query heads; `neurons`: of the feed-forward. Both lose one share."""

    @property
    def unit_kinds(self) -> tuple[UnitKind, ...]:
        """The units that it removes, at one common share."""
        return tuple(kind for kind in INNER if kind in self.units)
