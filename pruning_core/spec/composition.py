"""What a job may add to a method: ratios per block, refinements of a mask, reconstruction of blocks."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pruning_core.spec.base import Frozen

Ridge = Annotated[float, Field(ge=0, le=1000)] | Literal["auto"]
"""Pull of a least-squares fit towards the weight as it is, as a share of the Gram matrix's mean diagonal. `auto`: that of a few whose fit to four fifths of the calibration text is best on the rest."""


LARGEST_RATIO = 0.95
"""No allocation takes more from a block."""


class BlockAllocation(Frozen):
    """What every allocation has in common."""

    varies: ClassVar[bool] = True
    """Whether blocks may lose different shares."""
    needs_calibration: ClassVar[bool] = False
    name: str

    def check(self, ratio: float) -> None:
        """Refuse a share of the whole model that cannot be spread like this.

        Raises:
            ValueError: a block would lose less than nothing, or too much.
        """
        if ratio > LARGEST_RATIO:
            raise ValueError(f"allocation {self.name} needs a sparsity of at most {LARGEST_RATIO}")


class Uniform(BlockAllocation):
    """Every matrix loses the same share."""

    varies = False
    name: Literal["uniform"] = "uniform"


class Owl(BlockAllocation):
    """Blocks with many outlying scores lose less: arXiv 2310.05175."""

    needs_calibration = True
    name: Literal["owl"] = "owl"
    threshold: float = Field(default=5.0, gt=0, le=100)
    """A score is an outlier above this multiple of its block's mean."""
    spread: float = Field(default=0.08, ge=0, le=0.5)
    """Half the distance between the largest and the smallest ratio."""


class AlphaPruning(BlockAllocation):
    """Blocks whose spectra have heavy tails lose less: arXiv 2410.10912."""

    name: Literal["alphapruning"] = "alphapruning"
    epsilon: float = Field(default=0.3, ge=0, lt=1)
    """Ratios lie between (1 - epsilon) and (1 + epsilon) times the target, before clipping."""


class DepthRamp(BlockAllocation):
    """The ratio rises linearly with depth: arXiv 2502.14770."""

    name: Literal["ramp"] = "ramp"
    delta: float = Field(default=0.06, ge=0, le=0.5)
    """The last block loses this much more than the target, the first as much less."""

    def check(self, ratio: float) -> None:
        """Refuse a share of the whole model that cannot be spread like this."""
        super().check(ratio)
        most = min(ratio, LARGEST_RATIO - ratio)
        if self.delta > most + 1e-9:
            raise ValueError(
                f"a ramp of {self.delta} would take a block below 0 or above {LARGEST_RATIO}; "
                f"at a sparsity of {ratio} it may be at most {most:.3f}"
            )


Allocation = Annotated[Uniform | Owl | AlphaPruning | DepthRamp, Field(discriminator="name")]
UNIFORM = Uniform()
"""What a job gets that asks for no other allocation."""


class RefinementStep(Frozen):
    """What every refinement has in common."""

    fits_read_outs: ClassVar[bool] = False
    """Whether it makes up for units that are gone; all others work on masks of single weights."""
    name: str

    @property
    def attention_only(self) -> bool:
        """Whether feed-forward matrices are left alone."""
        return False


class Dsnot(RefinementStep):
    """Swap removed for kept weights so that each row's expected output returns to the dense one: arXiv 2310.08915."""

    name: Literal["dsnot"] = "dsnot"
    max_cycles: int = Field(default=50, ge=1, le=10_000)
    """Most swaps per row."""
    variance_exponent: float = Field(default=1.0, ge=0, le=4)
    """Power of the input's variance that divides the growing criterion."""
    tolerance: float | None = Field(default=None, ge=0)
    """Rows whose expected error is at most this are left alone. Unset: 0.1 over the window length."""
    sign_check: bool = True
    """Stop a row before its error changes sign."""
    targets: Literal["attention", "all"] = "attention"
    """The authors leave feed-forward matrices alone; `all` includes them."""
    relative: Literal["none", "grow", "prune"] = "none"
    """Use relative importance instead of magnitude in one of the two criteria: arXiv 2501.18980."""

    @property
    def attention_only(self) -> bool:
        """Whether feed-forward matrices are left alone."""
        return self.targets == "attention"


class Polish(RefinementStep):
    """Solve least squares for the surviving weights of a fixed mask, by conjugate gradients."""

    name: Literal["polish"] = "polish"
    steps: int = Field(default=10, ge=1, le=1000)
    damp: float = Field(default=0.01, ge=0, le=10)
    """Pull towards the incoming weight, as a share of the Gram matrix's mean diagonal."""


class Refit(RefinementStep):
    """Fit what is left of a read-out, by least squares, so that it makes up for the units removed: arXiv 2407.19126, 2602.23795."""

    fits_read_outs = True
    name: Literal["refit"] = "refit"
    ridge: Ridge = "auto"
    """Pull towards the sliced weight, as a share of the Gram matrix's mean diagonal; `auto` finds it on held-out calibration text, for every matrix."""
    target: Literal["same", "dense"] = "same"
    """`same`: the read-out's own dense output on the path that the pruned model sees. `dense`: the dense model's, which makes up for earlier blocks too, at the cost of a second pass."""


Refinement = Annotated[Dsnot | Polish | Refit, Field(discriminator="name")]


class Reconstruction(Frozen):
    """Train the surviving weights of each block to give the dense block's output: arXiv 2510.14444."""

    learning_rate: float = Field(default=1e-5, ge=0, le=1)
    epochs: int = Field(default=1, ge=1, le=100)
    batch: int = Field(default=2, ge=1, le=1024)
    """Windows per step."""
    held_out: float = Field(default=0.125, gt=0, le=0.5)
    """Share of the calibration windows that decide which state is kept: one of every round(1 / held_out)."""
    propagate: bool = False
    """Feed the pruned path's inputs instead of the dense path's."""
