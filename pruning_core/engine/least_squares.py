"""Least squares for a matrix whose inputs went, or whose targets are another model's outputs.

Ridge towards the weight as it is, so that no amount of it makes the fit worse than plain slicing:

    Z = W_K + (C_K - W_K G_KK) (G_KK + ridge mean(diag G_KK) I)^-1

G is the Gram matrix of the inputs that the pruned model sees, C the cross moment of the wanted outputs with them, K the
inputs that stay. With a bias both are centred, and the bias takes up the means. Li, Dong, Lei, arXiv 2407.19126, step two;
Tang, Wang, Thiele, Saukh, arXiv 2602.23795. Both shrink towards zero or not at all; this shrinks towards W_K.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning_core.engine.numerics import damped_cholesky, damping


@dataclass(frozen=True)
class Moments:
    """What the fit of a matrix needs, as means over tokens.

    Attributes:
        gram: [in, in], of the inputs that the pruned model sees.
        mean: [in], of those inputs.
        cross: [out, in], of the wanted outputs with those inputs.
        wanted: [out], mean of the wanted outputs.
        square: [out], mean square of the wanted outputs; None where nobody asks for errors.
    """

    gram: torch.Tensor
    mean: torch.Tensor
    cross: torch.Tensor
    wanted: torch.Tensor
    square: torch.Tensor | None

    @classmethod
    def of_same_path(
        cls,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        gram: torch.Tensor,
        mean: torch.Tensor,
    ) -> Moments:
        """Return the moments where the wanted outputs are the matrix's own, on the same inputs."""
        offset = torch.zeros(len(weight), device=weight.device) if bias is None else bias.float()
        product = weight @ gram
        pulled = weight @ mean
        square = (product * weight).sum(dim=1) + 2 * offset * pulled + offset.square()
        return cls(gram, mean, product + offset[:, None] * mean, pulled + offset, square)


def fit(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    moments: Moments,
    keep: torch.Tensor | None,
    ridge: float,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight [out, in], zero where inputs went, and the bias [out].

    Args:
        weight: float32 [out, in], dense at the inputs that stay.
        bias: float32 [out]; None where there is none, and none is made.
        moments: On the path that the pruned model sees.
        keep: int64, inputs that stay; None for all.
        ridge: Pull towards the weight as it is, as a share of the mean diagonal of the Gram matrix.

    Raises:
        NumericalFailure: the Gram matrix cannot be factorised.
    """
    keep = torch.arange(weight.shape[1], device=weight.device) if keep is None else keep
    gram, mean = moments.gram[keep][:, keep], moments.mean[keep]
    cross, start = moments.cross[:, keep], weight[:, keep]
    if bias is not None:
        gram = gram - torch.outer(mean, mean)
        cross = cross - torch.outer(moments.wanted, mean)
    lower = damped_cholesky(gram, damping(gram, ridge or 1e-6))
    change = torch.cholesky_solve((cross - start @ gram).T, lower).T
    fitted = torch.zeros_like(weight)
    fitted[:, keep] = start + change
    return fitted, None if bias is None else moments.wanted - fitted @ moments.mean


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
    offset = torch.zeros_like(moments.wanted) if bias is None else bias
    own = ((weight @ moments.gram) * weight).sum(dim=1)
    pulled = weight @ moments.mean
    inner = (weight * moments.cross).sum(dim=1)
    squares = own + 2 * offset * (pulled - moments.wanted) + offset.square() - 2 * inner
    above = float((squares.double() + moments.square).sum().clamp_min(0))
    below = float(moments.square.sum())
    return (above / below) ** 0.5 if below > 0 else None
