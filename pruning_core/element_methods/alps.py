"""ALPS: Meng, Behdin, Wang, Mazumder, arXiv 2406.07831; the `gradual` schedule is Boža's, arXiv 2401.02938.

H = G + lambda I,  lambda = damp * mean(diag G),  d = sqrt(diag H),  A = H / (d d^T),  X = W d,  B = X A
adaptive: Z = X where kept by |X|, Y = 0, rho = 0.1; up to 300 times
              V = (B - Y + rho Z)(A + rho I)^-1;  keep by |V + Y/rho|;  Z = (V + Y/rho) where kept;  Y += rho (V - Z)
          every third step rho grows with the share of the support that changed; no change ends it
gradual:  A += 0.1 I, rho = 1, 20 steps; for 15 of them the removed share rises from 0 to the target by a cubic
result:   V (adaptive) or V + Y (gradual) where kept, over d; then conjugate gradients on the fixed mask (see `polish`)

Departures from the authors' code: the inverse comes from a Cholesky factorisation per rho where theirs diagonalises
once, which is cheaper because A + rho I is well conditioned; Boža's matrix-wide branch ignores its own schedule, ours
follows it; after it the mask is still chosen anew at every step and once more at the end, where the specification of
the schedule freezes it, which lowers the loss a little; any pattern works in both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from pruning_core.numerics.importance import active_magnitude
from pruning_core.numerics.input_statistics import Stats
from pruning_core.numerics.linear_algebra import damped_cholesky, damping, smallest
from pruning_core.numerics.masked_least_squares import masked_least_squares
from pruning_core.selection.masks import Selector
from pruning_core.spec.element_methods import ALPS
from pruning_core.spec.patterns import NofM, removed_count

NEEDS: tuple[str, ...] = ("gram",)
MOST_STEPS, CHECK_EVERY, SETTLED_AFTER, SETTLED_SHARE = 300, 3, 30, 3e-4
SHARED = 8192
"""Widest input whose inverses are kept for its other matrices; about a dozen of them are made."""
FIRST_RHO, LARGEST_RHO = 0.1, 1e6
GRADUAL_STEPS, RAMP_STEPS, GRADUAL_DAMP = 20, 15, 0.1


def score(weight: torch.Tensor, stats: Stats, params: ALPS) -> torch.Tensor:
    """Return Wanda's importance of every weight, [out, in]: it orders channels before they are permuted."""
    return active_magnitude(weight, stats)


def prune(
    weight: torch.Tensor, stats: Stats, select: Selector, params: ALPS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight [out, in] with survivors optimised and the rest zero, and the mask of what stays."""
    assert stats.gram is not None
    scaled = stats.once(("scaled", params.damp), lambda: _Scaled.of(stats, params.damp))
    solve = _adaptive if params.schedule == "adaptive" else _gradual
    solution, keep_mask = solve(weight * scaled.scale, scaled, select)
    start = (solution * keep_mask) / scaled.scale
    polished = masked_least_squares(
        weight, start, keep_mask, stats.gram, scaled.damping, params.cg_steps
    )
    return polished, keep_mask


@dataclass(frozen=True)
class _Scaled:
    """The damped Gram matrix with a unit diagonal.

    Attributes:
        matrix: A, [in, in].
        scale: d, [in].
        damping: lambda.
    """

    matrix: torch.Tensor
    scale: torch.Tensor
    damping: float
    _inverses: dict[float, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, stats: Stats, damp: float) -> _Scaled:
        assert stats.gram is not None
        added = damping(stats.gram, damp)
        damped = stats.gram.clone()
        damped.diagonal().add_(added)
        scale = damped.diagonal().sqrt().clamp(min=1e-8)
        return cls(damped.div_(scale).div_(scale[:, None]), scale, added)

    def inverse(self, rho: float) -> torch.Tensor:
        """Return (A + rho I)^-1, [in, in]; matrices of one input come to the same rhos and share it."""
        if rho in self._inverses:
            return self._inverses[rho]
        inverse = torch.cholesky_inverse(damped_cholesky(self.matrix, rho))
        if len(inverse) <= SHARED:
            self._inverses[rho] = inverse
        return inverse


def _adaptive(
    target: torch.Tensor, scaled: _Scaled, select: Selector
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return V and its mask."""
    linear, inverse = target @ scaled.matrix, scaled.inverse(FIRST_RHO)
    seen = select.keep_mask(target.abs())
    first = target * seen
    size = int(seen.sum())
    solution, dual, rho, raised = first, torch.zeros_like(target), FIRST_RHO, False
    for step in range(1, MOST_STEPS + 1):
        free = (linear - dual).add_(solution, alpha=rho) @ inverse
        candidate = free.add(dual, alpha=1 / rho)
        keep_mask = select.keep_mask(candidate.abs())
        solution = candidate.mul_(keep_mask)
        dual.add_(free, alpha=rho).sub_(solution, alpha=rho)
        if step % CHECK_EVERY:
            continue
        changed = int((keep_mask != seen).sum()) / size
        seen = keep_mask
        if (changed == 0 and raised) or (step > SETTLED_AFTER and changed < SETTLED_SHARE):
            break
        if changed > 0.005 or raised:
            raised = True
            rho = min(LARGEST_RHO, rho * _growth(changed))
        else:  # too stiff from the start
            rho /= 5
            if changed:
                solution, dual = first, torch.zeros_like(target)
        inverse = scaled.inverse(rho)
    return free, select.keep_mask(free.abs())


def _growth(changed: float) -> float:
    return 1.3 if changed > 0.1 else 1.2 if changed > 0.005 else 1.1


def _gradual(
    target: torch.Tensor, scaled: _Scaled, select: Selector
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return V + Y and its mask."""
    inverse = scaled.inverse(1 + GRADUAL_DAMP)
    linear = (target @ scaled.matrix).add_(target, alpha=GRADUAL_DAMP)
    free, dual = target.clone(), torch.zeros_like(target)
    for step in range(1, GRADUAL_STEPS + 1):
        candidate = free + dual
        share = select.ratio * (1 - (1 - min(1, step / RAMP_STEPS)) ** 3)
        keep_mask = _partly(candidate.abs(), select, share if step < RAMP_STEPS else None)
        solution = candidate * keep_mask
        dual.add_(free).sub_(solution)
        free = (linear + solution - dual) @ inverse
    candidate = free + dual
    return candidate, select.keep_mask(candidate.abs())


def _partly(scores: torch.Tensor, select: Selector, share: float | None) -> torch.Tensor:
    """Return the mask at an intermediate share; n:m never takes what its groups will keep."""
    if share is None:
        return select.keep_mask(scores)
    if not isinstance(select.pattern, NofM):
        return select.at(share).keep_mask(scores)
    spared = scores.masked_fill(select.keep_mask(scores), torch.inf).reshape(1, -1)
    return ~smallest(spared, removed_count(share, scores.numel())).reshape(scores.shape)
