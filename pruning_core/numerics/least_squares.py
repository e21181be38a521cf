"""Least squares for a matrix whose inputs went, or whose targets are another model's outputs.

Ridge towards the weight as it is, so that no amount of it makes the fit worse than plain slicing:

    Z = W_K + (C_K - W_K G_KK) (G_KK + ridge mean(diag G_KK) I)^-1

G is the Gram matrix of the inputs that the pruned model sees, C the cross moment of the wanted outputs with them, K the
inputs that stay. With a bias both are centred, and the bias takes up the means. Li, Dong, Lei, arXiv 2407.19126, step two;
Tang, Wang, Thiele, Saukh, arXiv 2602.23795. Both shrink towards zero or not at all; this shrinks towards W_K.

How much the fit is pulled can be found out: with each of `RIDGES` it is made on four fifths of the text, and that one is
taken for all of it whose fit is best on the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.linear_algebra import damped_cholesky, damping

RIDGES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Tried where the text is to decide; of equally good ones the first."""
JUDGED = 128
"""So many outputs of a matrix, evenly spread, decide for all of them."""


@dataclass(frozen=True)
class Moments:
    """What the fit of a matrix needs, as means over tokens.

    Attributes:
        gram: [in, in], of the inputs that the pruned model sees.
        mean: [in], of those inputs.
        cross: [out, in], of the wanted outputs with those inputs.
        wanted: [out], mean of the wanted outputs.
        square: [out], mean square of the wanted outputs; None where nobody asks for errors.
        tokens: How many.
        held: Of the held-out tokens among them, where the text is to decide about the ridge.
    """

    gram: torch.Tensor
    mean: torch.Tensor
    cross: torch.Tensor
    wanted: torch.Tensor
    square: torch.Tensor | None
    tokens: int = 0
    held: Moments | None = None

    @classmethod
    def of_same_path(cls, weight: torch.Tensor, bias: torch.Tensor | None, stats: Stats) -> Moments:
        """Return the moments where the wanted outputs are the matrix's own, on the same inputs.

        Args:
            weight: float32 [out, in].
            bias: [out] or None.
            stats: Of the inputs, with Gram matrix and mean.
        """
        gram, mean = stats.gram, stats.column_mean
        assert gram is not None
        assert mean is not None
        offset = torch.zeros(len(weight), device=weight.device) if bias is None else bias.float()
        product = weight @ gram
        pulled = weight @ mean
        square = (product * weight).sum(dim=1) + 2 * offset * pulled + offset.square()
        held = None if stats.held is None else cls.of_same_path(weight, bias, stats.held)
        cross = product + offset[:, None] * mean
        return cls(gram, mean, cross, pulled + offset, square, stats.tokens, held)

    def of_outputs(self, rows: slice) -> Moments:
        """Return what some of the outputs need; without `square` and `held`."""
        cross, wanted = self.cross[rows], self.wanted[rows]
        return replace(self, cross=cross, wanted=wanted, square=None, held=None)

    def without_held(self) -> Moments:
        """Return the moments of the tokens that are not held out."""
        assert self.held is not None
        share = self.held.tokens / self.tokens

        def without(all_of_them: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
            return (all_of_them - share * part) / (1 - share)

        return Moments(
            without(self.gram, self.held.gram),
            without(self.mean, self.held.mean),
            without(self.cross, self.held.cross),
            without(self.wanted, self.held.wanted),
            None,
        )


def fit(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    moments: Moments,
    channels: torch.Tensor | None,
    ridge: float,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight [out, in], zero where inputs went, and the bias [out].

    Args:
        weight: float32 [out, in], dense at the inputs that stay.
        bias: float32 [out]; None where there is none, and none is made.
        moments: On the path that the pruned model sees.
        channels: int64, inputs that stay; None for all.
        ridge: Pull towards the weight as it is, as a share of the mean diagonal of the Gram matrix.

    Raises:
        NumericalFailure: the Gram matrix cannot be factorised.
    """
    channels = torch.arange(weight.shape[1], device=weight.device) if channels is None else channels
    gram, mean = moments.gram[channels][:, channels], moments.mean[channels]
    cross, start = moments.cross[:, channels], weight[:, channels]
    if bias is not None:
        gram = gram - torch.outer(mean, mean)
        cross = cross - torch.outer(moments.wanted, mean)
    lower = damped_cholesky(gram, damping(gram, ridge or 1e-6))
    change = torch.cholesky_solve((cross - start @ gram).T, lower).T
    fitted = torch.zeros_like(weight)
    fitted[:, channels] = start + change
    return fitted, None if bias is None else moments.wanted - fitted @ moments.mean


def held_out_ridge(
    weight: torch.Tensor, bias: torch.Tensor | None, moments: Moments, channels: torch.Tensor | None
) -> float:
    """Return the one of `RIDGES` whose fit to the other tokens is best on those held out; the largest if there are none.

    Arguments are those of `fit`.
    """
    if moments.held is None or moments.held.tokens == 0:
        return max(RIDGES)
    rows = slice(None, None, -(-len(weight) // JUDGED))
    start, offset = weight[rows], None if bias is None else bias[rows]
    others, held = moments.without_held().of_outputs(rows), moments.held.of_outputs(rows)
    errors = {}
    for ridge in RIDGES:
        fitted = fit(start, offset, others, channels, ridge)
        errors[ridge] = float(_squares(*fitted, held).double().sum())
    return min(errors, key=errors.__getitem__)


def relative_error(
    weight: torch.Tensor, bias: torch.Tensor | None, moments: Moments
) -> float | None:
    """Return the norm of (output - wanted output) over the norm of the wanted output, over all tokens.

    Args:
        weight: float32 [out, in].
        bias: float32 [out] or None.
        moments: Of the inputs and the wanted outputs.
    """
    assert moments.square is not None
    squares = _squares(weight, bias, moments)
    above = float((squares.double() + moments.square).sum().clamp_min(0))
    below = float(moments.square.sum())
    return (above / below) ** 0.5 if below > 0 else None


def _squares(weight: torch.Tensor, bias: torch.Tensor | None, moments: Moments) -> torch.Tensor:
    """Return the mean square of every output's error, less that of the wanted output, [out]."""
    offset = torch.zeros_like(moments.wanted) if bias is None else bias
    own = ((weight @ moments.gram) * weight).sum(dim=1)
    pulled = weight @ moments.mean
    inner = (weight * moments.cross).sum(dim=1)
    return own + 2 * offset * (pulled - moments.wanted) + offset.square() - 2 * inner
