"""One class per method that zeroes single weights: its parameters with bounds, and what the catalogue says about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pruning_core.spec.base import Frozen
from pruning_core.spec.patterns import NofM, Pattern, PatternName
from pruning_core.spec.search import Search

Damp = Annotated[float, Field(gt=0, le=10)]
Exponent = Annotated[float, Field(ge=0, le=2)]
Share = Annotated[float, Field(ge=0, le=1e6)]
Neighbour = Literal["ratio", "ratio_no_centre", "ratio_gauss", "smooth", "score_map"]


class ElementMethod(Frozen):
    """What the catalogue knows of a method that zeroes single weights."""

    kind: ClassVar[Literal["element"]] = "element"
    summary: ClassVar[str]
    source: ClassVar[str]
    needs_calibration: ClassVar[bool]
    patterns: ClassVar[tuple[PatternName, ...]] = ("row", "matrix", "n:m")
    default_pattern: ClassVar[PatternName]
    default_samples: ClassVar[int | None] = None
    output: ClassVar[str] = "dense safetensors of the source's dtype and size, with exact zeros"
    name: str

    @property
    def searched_by(self) -> Search | None:
        """How parameters are searched before pruning, if they are."""
        return None

    @property
    def preset_name(self) -> str | None:
        """Of stored parameters that take the place of its own, where one is named."""
        return None

    def decided(self, parameters: Mapping[str, object]) -> Self:
        """Return the method with what a search found, or a preset says, in the place of search and preset."""
        return self.model_copy(update={**parameters, "search": None, "preset": None})

    def check_pattern(self, pattern: Pattern) -> None:
        """Refuse a pattern that does not go together with these parameters.

        Raises:
            ValueError: it does not.
        """


class Magnitude(ElementMethod):
    """Remove the weights with the smallest absolute value."""

    summary = "smallest absolute values go; the baseline, no calibration data"
    source = "classic baseline, as in arXiv 2301.00774 and 2306.11695"
    needs_calibration = False
    default_pattern = "matrix"

    name: Literal["magnitude"] = "magnitude"


class Wanda(ElementMethod):
    """Remove the weights with the smallest |weight| x root mean square of their input."""

    summary = "weights x activations, compared within each output row"
    source = "Sun, Liu, Bair, Kolter: arXiv 2306.11695"
    needs_calibration = True
    default_pattern = "row"

    name: Literal["wanda"] = "wanda"


class SparseGPT(ElementMethod):
    """Remove weights column by column and let the columns after them make up for the loss."""

    summary = "second-order mask with an update of the survivors, column by column"
    source = "Frantar, Alistarh: arXiv 2301.00774"
    needs_calibration = True
    default_pattern = "matrix"

    name: Literal["sparsegpt"] = "sparsegpt"
    damp: Damp = 0.01
    """Damping of the Gram matrix, as a share of its mean diagonal."""
    block: int = Field(default=128, ge=1, le=4096)
    """Columns whose mask is chosen at once; with `n:m` a multiple of m."""

    def check_pattern(self, pattern: Pattern) -> None:
        """Refuse groups that a span of columns would cut."""
        if isinstance(pattern, NofM) and self.block % pattern.m:
            raise ValueError(
                f"sparsegpt's block ({self.block}) must be a multiple of m ({pattern.m})"
            )


class RIA(ElementMethod):
    """Remove the weights that matter least relative to their row and column."""

    summary = "relative importance within row and column x activations"
    source = "Zhang, Bai, Lin, Zhao, Hou, Cannistraci: ICLR 2024, OpenReview Tr0lPx9woF"
    needs_calibration = True
    default_pattern = "matrix"

    name: Literal["ria"] = "ria"
    exponent: Exponent = 0.5
    """Power of the root mean square of the input; 0 ignores activations."""


class CRePE(ElementMethod):
    """RIA with a third term, the importance of a weight within its 2-D neighbourhood (a reconstruction)."""

    summary = "RIA with a 2-D neighbourhood term; coefficients given, from a preset, or searched"
    source = "a reconstruction after Park: arXiv 2606.01544"
    needs_calibration = True
    default_pattern = "matrix"

    name: Literal["crepe"] = "crepe"
    alpha: Share = 1.0
    """Coefficient of the row term."""
    beta: Share = 1.0
    """Coefficient of the column term."""
    gamma: Share = 0.0
    """Coefficient of the neighbourhood term; (1, 1, 0) is RIA exactly."""
    kernel: int = Field(default=3, ge=1, le=255)
    """Side of the neighbourhood in weights, odd; it is cut at the matrix's border."""
    neighbour: Neighbour = "ratio"
    """Form of the neighbourhood term."""
    exponent: Exponent = 0.5
    """Power of the root mean square of the input."""
    preset: str | None = Field(default=None, min_length=1, max_length=64)
    """Name of stored coefficients, which take the place of the fields above; expanded at submit."""
    search: Search | None = None
    """Search the coefficients and the kernel before pruning."""

    @property
    def searched_by(self) -> Search | None:
        """How parameters are searched before pruning, if they are."""
        return self.search

    @property
    def preset_name(self) -> str | None:
        """Of stored parameters that take the place of its own, where one is named."""
        return self.preset

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that it has a centre; it is {self.kernel}")
        if self.alpha + self.beta + self.gamma == 0:
            raise ValueError(
                "alpha, beta and gamma are all zero: no weight would score above another"
            )
        given = [name for name in COEFFICIENTS if getattr(self, name) != _default(name)]
        if (self.preset or self.search) and given:
            raise ValueError(
                f"give either {', '.join(given)}, or a preset or a search in their place"
            )
        if self.preset and self.search:
            raise ValueError("give either a preset or a search, not both")
        return self


COEFFICIENTS = ("alpha", "beta", "gamma", "kernel", "neighbour")
"""The fields of CRePE that a preset or a search decides."""


def _default(name: str) -> object:
    return CRePE.model_fields[name].default


class ALPS(ElementMethod):
    """Optimise mask and weights together by ADMM, then polish the weights by conjugate gradients."""

    summary = "ADMM for mask and weights together, then conjugate gradients; the best quality here"
    source = "Meng, Behdin, Wang, Mazumder: arXiv 2406.07831; fast schedule Boža: arXiv 2401.02938"
    needs_calibration = True
    default_pattern = "matrix"

    name: Literal["alps"] = "alps"
    schedule: Literal["adaptive", "gradual"] = "adaptive"
    """`adaptive` raises the penalty until the mask settles; `gradual` takes 20 steps, faster, a little worse."""
    damp: Damp = 0.01
    """Damping of the Gram matrix, as a share of its mean diagonal."""
    cg_steps: int = Field(default=10, ge=0, le=1000)
    """Steps of the final polish on the fixed mask."""
