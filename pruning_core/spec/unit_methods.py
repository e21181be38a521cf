"""One class per method that removes whole units: its parameters with bounds, its facts, what the catalogue says about it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pruning_core.errors import SizeUnreachable, UnitsUnsupported
from pruning_core.spec.composition import Refit, Ridge
from pruning_core.spec.patterns import Units
from pruning_core.spec.unit_method import (
    INNER,
    UNIT_NAMES,
    InnerMethod,
    ModelShape,
    UnitKind,
    UnitMethod,
)

_OF_RESIDUALS = ("statistic", "bos", "layer_norm", "layer_reduce", "rescale")
"""What DIET's profiles of residual dimensions are made with."""


class Diet(UnitMethod):
    """Remove the residual dimensions that most tasks vote for: the quietest ones over all blocks (a reconstruction)."""

    summary = "one mask over residual dimensions for the whole model, by majority vote over tasks"
    source = "a reconstruction after Hong, Kim: arXiv 2603.23985"
    removable = ("hidden", *INNER)
    default_samples = 100

    name: Literal["diet"] = "diet"
    granularity: Literal["residual", "units", "per_layer"] = "residual"
    """`residual`: one mask for the model. `units`: neurons and key-value groups by the same vote. `per_layer`: a residual mask for every block, with `mode: zero` only."""
    statistic: Literal["mean_abs", "rms"] = "mean_abs"
    """Of a dimension over the tokens of a sample."""
    bos: Literal["drop", "keep"] = "drop"
    """Whether the tokenizer's first token counts."""
    layer_norm: Literal["mean", "none"] = "mean"
    """Divide each block's profile by its mean, so that late blocks with larger states do not decide alone."""
    layer_reduce: Literal["mean", "max"] = "max"
    """How the blocks' profiles become one importance."""
    merge: Literal["vote", "vote_strict", "mean_score"] = "vote"
    """How tasks are merged. `vote_strict` removes what more than half of them name, however much that is."""
    rescale: bool = True
    """Rescale norms and embeddings so that removing equals zeroing; false slices plainly."""

    @property
    def rescales(self) -> bool:
        """Whether norms and embeddings make up for residual dimensions that go."""
        return self.rescale

    @property
    def unit_kinds(self) -> tuple[UnitKind, ...]:
        """The units that it removes, at one common share."""
        return INNER if self.granularity == "units" else ("hidden",)

    @property
    def masks_by_block(self) -> bool:
        """Whether every block loses residual dimensions of its own."""
        return self.granularity == "per_layer"

    def check(self, pattern: Units, refit: Refit | None) -> None:
        """Refuse masks by block where widths must be uniform, or are fitted."""
        if self.masks_by_block and pattern.mode == "remove":
            raise ValueError("granularity per_layer needs the pattern's `mode: zero`")
        if self.masks_by_block and refit is not None:
            raise ValueError(
                "refit does not go with granularity per_layer: every block reads other dimensions"
            )

    @model_validator(mode="after")
    def _fields_count(self) -> Self:
        fields = type(self).model_fields
        idle = [name for name in _OF_RESIDUALS if getattr(self, name) != fields[name].default]
        if self.granularity == "units" and idle:
            raise ValueError(
                f"granularity units takes mean sizes at the read-outs: {', '.join(idle)} would do nothing"
            )
        return self

    @model_validator(mode="after")
    def _one_count(self) -> Self:
        if self.merge == "vote_strict" and self.granularity != "residual":
            raise ValueError(
                "merge vote_strict needs the granularity residual: blocks must lose the same number"
            )
        return self


SPARED = (4, 2)
"""First and last blocks that GOA's `blocks: inner` leaves alone: section 5 of arXiv 2407.19126; the others lose more."""


class GOA(InnerMethod):
    """Greedy output approximation: whole heads and neurons that change their module's output least, module by module."""

    summary = "heads and neurons by their effect on depth-2 modules, with two-step reconstruction"
    source = "Li, Dong, Lei: arXiv 2407.19126 (from the paper; no reference code)"

    name: Literal["goa"] = "goa"
    heads_by: Literal["moment", "similarity", "similarity_protected"] = "moment"
    """`moment`: expected size of the head's output. `similarity`: heads whose attention another one repeats; `similarity_protected` never removes a head that stands in for a removed one."""
    gated_form: Literal["product", "channel"] = "product"
    """Second moment of a gated neuron: the paper's product of both halves, or of the channel as it is."""
    covariance: Literal["calibration", "identity"] = "calibration"
    """Of the module's input; `identity` scores without data."""
    reconstruct: bool = False
    """Fit both levels of every module to the dense model's outputs before it is scored, by least squares."""
    ridge: Ridge = "auto"
    """Pull of that fit towards the weight as it is, as a share of the Gram matrix's mean diagonal; `auto` finds it on held-out calibration text, for every matrix."""
    threshold: float | None = Field(default=None, gt=0)
    """Remove key-value groups whose divergence to a later one is below this; in place of `sparsity`."""
    blocks: Literal["all", "inner"] = "all"
    """`inner` spares the first four and the last two blocks, as the paper does; with `mode: zero` only."""

    @property
    def decides_amount(self) -> bool:
        """Whether its own parameters say how much goes, in place of `sparsity` or a budget."""
        return self.threshold is not None

    @property
    def compares_heads(self) -> bool:
        """Whether attention probabilities are needed."""
        return self.heads_by != "moment" and "kv_groups" in self.units

    @property
    def fits_modules(self) -> Ridge | None:
        """The ridge by which every module is fitted to the dense model before it is scored; None where none is."""
        return self.ridge if self.reconstruct else None

    def blocks_touched(self, blocks: int) -> range:
        """Return the blocks that lose units within them, of so many."""
        return range(SPARED[0], blocks - SPARED[1]) if self.blocks == "inner" else range(blocks)

    def check(self, pattern: Units, refit: Refit | None) -> None:
        """Refuse spared blocks where widths must be uniform, and a second fit."""
        if self.blocks == "inner" and pattern.mode == "remove":
            raise ValueError(
                "blocks inner needs the pattern's `mode: zero`: widths must be uniform"
            )
        if self.reconstruct and refit is not None:
            raise ValueError("goa's `reconstruct` fits what stays already: leave out the refit")

    def check_model(self, shape: ModelShape) -> None:
        """Refuse to follow routed experts, and sizes that the touched blocks, or heads whose twins stay, cannot come to."""
        if self.reconstruct and shape.routes:
            raise UnitsUnsupported(
                "goa's reconstruction cannot follow routed experts: the two models send tokens to different ones.",
                suggestions=("leave `reconstruct` off",),
                pointer="/prune/method/reconstruct",
            )
        touched = len(self.blocks_touched(shape.blocks))
        if touched < 1:
            raise SizeUnreachable(
                f"blocks inner spares the first {SPARED[0]} and the last {SPARED[1]} blocks: this model has {shape.blocks}.",
                suggestions=("use blocks `all`",),
                pointer="/prune/method/blocks",
            )
        for kind in INNER:
            whole = shape.before[kind]
            n_drop = round((whole - shape.after[kind]) * shape.blocks / touched)
            if n_drop >= whole:
                raise SizeUnreachable(
                    f"blocks inner would have to take {n_drop} of {whole} {UNIT_NAMES[kind]} from the {touched} blocks "
                    "that it touches; at least one stays.",
                    suggestions=("ask for less", "use blocks `all`"),
                    pointer="/prune/method/blocks",
                )
            protected = kind == "kv_groups" and self.heads_by == "similarity_protected"
            if protected and n_drop > whole // 2:
                raise UnitsUnsupported(
                    f"heads_by similarity_protected can remove at most {whole // 2} of {whole} key-value groups, "
                    f"{n_drop} are to go.",
                    suggestions=("use heads_by `moment` or `similarity`",),
                    pointer="/prune/method/heads_by",
                )

    @model_validator(mode="after")
    def _threshold_of_heads(self) -> Self:
        if self.threshold is not None and (
            self.heads_by != "similarity" or self.units != ("kv_groups",)
        ):
            raise ValueError('threshold needs heads_by `similarity` and units ["kv_groups"]')
        return self


class FLAP(InnerMethod):
    """Remove channels whose input fluctuates least, weighted by the read-out: heads and neurons compared by z-scores."""

    summary = "heads and neurons whose inputs fluctuate least; the mean that they leave can be kept"
    source = "An, Zhao, Yu, Tang, Wang: arXiv 2312.11983"

    name: Literal["flap"] = "flap"
    compensation: Literal["none", "bias"] = "none"
    """`bias` moves the mean output of what goes into the read-out's bias, where the architecture has one; the refinement `refit` does it everywhere."""

    @property
    def keeps_means(self) -> bool:
        """Whether the mean output of what goes moves into the read-out's bias, where there is one."""
        return self.compensation == "bias"

    def check_model(self, shape: ModelShape) -> None:
        """Refuse to move means into biases that no read-out has."""
        if self.keeps_means and not shape.with_bias & set(self.units):
            raise UnitsUnsupported(
                f"flap's compensation `bias` needs a read-out with a bias, and this {shape.model_type} model has none.",
                suggestions=(
                    "leave `compensation` off and use the refinement `refit`: it needs no bias",
                ),
                pointer="/prune/method/compensation",
            )


class WandaSp(InnerMethod):
    """Wanda for units: the size of a read-out's column times the root mean square of its input."""

    summary = "heads and neurons by weights x activations of the read-out; a baseline"
    source = "a baseline of arXiv 2312.11983"

    name: Literal["wanda_sp"] = "wanda_sp"


class LayerDrop(UnitMethod):
    """Remove whole blocks that change the hidden state least."""

    summary = "blocks that turn the hidden state least; fast models, fragile perplexity"
    source = "Men et al.: arXiv 2403.03853; contiguous: Gromov et al.: arXiv 2403.17887"
    removable = ("layers",)

    name: Literal["layer_drop"] = "layer_drop"
    contiguous: bool = False
    """Remove one run of blocks, by the angle between its ends at the last token."""
    rescore: bool = False
    """Remove one block at a time and measure the others again."""

    @property
    def unit_kinds(self) -> tuple[UnitKind, ...]:
        """The units that it removes, at one common share."""
        return ("layers",)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.contiguous and self.rescore:
            raise ValueError("a contiguous run goes at once: give either contiguous or rescore")
        return self


class RandomUnits(UnitMethod):
    """Remove units at random: what every other method must beat."""

    summary = "units at random; the control"
    source = "none"
    needs_calibration = False
    removable = (*INNER, "hidden", "layers")

    name: Literal["random_units"] = "random_units"
    units: tuple[Literal["hidden", "neurons", "kv_groups", "layers"], ...] = Field(
        default=INNER, min_length=1, max_length=2
    )
    """One kind, or key-value groups and neurons together."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)

    @property
    def unit_kinds(self) -> tuple[UnitKind, ...]:
        """The units that it removes, at one common share."""
        return INNER if len(self.units) > 1 else self.units

    @model_validator(mode="after")
    def _one_kind_or_the_inner(self) -> Self:
        if len(self.units) > 1 and set(self.units) != set(INNER):
            raise ValueError("units are of one kind, or kv_groups and neurons together")
        return self


class Contextual(UnitMethod):
    """Remove what stays quiet on the text of one domain: heads, neurons and tokens (Mini-GPTs)."""

    summary = "what a domain's text never uses: heads, neurons, tokens; then fine-tune"
    source = "Valicenti, Vidal, Patnaik: arXiv 2312.12682; code tval2/contextual-pruning"
    removable = (*INNER, "vocabulary")

    name: Literal["contextual"] = "contextual"
    parts: tuple[Literal["linear", "activation", "embedding"], ...] = Field(
        default=("linear", "activation"), min_length=1, max_length=3
    )
    """`linear`: key-value groups (with `mode: zero` single rows and columns); `activation`: neurons; `embedding`: tokens."""
    absolute: float | None = Field(default=None, ge=0)
    """Units whose mean absolute activation is at most this go; in place of `sparsity`."""
    relative: float | None = Field(default=None, ge=0, le=100)
    """The same, as a multiple of the mean over the units of the block; in place of `sparsity`."""
    token_threshold: float = Field(default=0.0, ge=0, lt=1)
    """Tokens of at most this relative frequency go: 0 for those never seen. Special and byte tokens stay."""

    @property
    def unit_kinds(self) -> tuple[UnitKind, ...]:
        """The units that it removes, at one common share."""
        kinds: tuple[tuple[str, UnitKind], ...] = (
            ("linear", "kv_groups"),
            ("activation", "neurons"),
            ("embedding", "vocabulary"),
        )
        return tuple(kind for part, kind in kinds if part in self.parts)

    @property
    def decides_amount(self) -> bool:
        """Whether its own parameters say how much goes, in place of `sparsity` or a budget."""
        return self.absolute is not None or self.relative is not None

    @property
    def needs_amount(self) -> bool:
        """Whether a job must say how much goes: of tokens alone a threshold of their own decides."""
        return self.unit_kinds != ("vocabulary",)

    @property
    def zeroes_single_rows(self) -> bool:
        """Whether single rows and columns become zero in `mode: zero`, which no unit counts."""
        return "linear" in self.parts and self.decides_amount

    def check(self, pattern: Units, refit: Refit | None) -> None:
        """Refuse to fit what loses single rows and columns."""
        if pattern.mode == "zero" and refit is not None and "linear" in self.parts:
            raise ValueError("refit does not go with single rows and columns (`mode: zero`)")

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if self.absolute is not None and self.relative is not None:
            raise ValueError("give either an absolute or a relative threshold")
        if self.decides_amount and self.parts == ("embedding",):
            raise ValueError(
                "absolute and relative are thresholds of heads and neurons; for tokens give `token_threshold`"
            )
        return self
