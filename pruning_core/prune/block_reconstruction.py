"""Block reconstruction: Wagner, Roux, Zimmer, Pokutta, arXiv 2510.14444.

The surviving weights of one block are trained by AdamW so that the pruned block's output comes close to the dense one's:
mean squared error, 10 % warm-up, then linear decay, the mask applied again after every step. The state that is best on
held-out windows is kept; if none beats the start, the start is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from pruning_core.model.block_calls import Call, run
from pruning_core.spec.composition import Reconstruction
from pruning_core.spec.report_parts.removal import ReconstructionReport

WARM_UP = 0.1
CHECKS_PER_EPOCH = 4


@dataclass(frozen=True)
class Sample:
    """One batch of windows.

    Attributes:
        hidden: Input of the block, [batch, seq, dim].
        call: The block's other arguments.
        target: The dense block's output, [batch, seq, dim].
    """

    hidden: torch.Tensor
    call: Call
    target: torch.Tensor


def reconstruct(
    block: nn.Module,
    weights: Sequence[nn.Parameter],
    stored: Sequence[torch.dtype],
    samples: Sequence[Sample],
    params: Reconstruction,
    alive: Callable[[], None],
) -> ReconstructionReport:
    """Train a pruned block's weights in place; zeros stay zero.

    Args:
        block: In the model's dtype.
        weights: The pruned modules' weights.
        stored: The dtypes that the checkpoint stores them in; what is kept has gone through them.
        samples: At least two; every n-th is held out, so that every task is.
        params: Learning rate, epochs, batch, held-out share.
        alive: Called after every step.
    """
    every = max(2, round(1 / params.held_out))
    validation = samples[every - 1 :: every] or samples[-1:]
    training = [sample for sample in samples if all(sample is not held for held in validation)]
    masks = [weight.data != 0 for weight in weights]
    computed = weights[0].dtype
    block.float()
    best = [weight.data.clone() for weight in weights]
    before = lowest = _loss(block, validation, computed)
    optimiser = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=0)
    steps = params.epochs * -(-len(training) // params.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    check = max(1, steps // (params.epochs * CHECKS_PER_EPOCH))
    for step in range(steps):
        _step(block, weights, masks, _batch(training, step, params.batch), optimiser, computed)
        schedule.step()
        alive()
        if (step + 1) % check == 0 or step + 1 == steps:
            masters = [weight.data for weight in weights]
            for weight, dtype in zip(weights, stored, strict=True):
                weight.data = weight.data.to(dtype).float()
            loss = _loss(block, validation, computed)
            if loss < lowest:
                lowest, best = loss, [weight.data.clone() for weight in weights]
            _put(weights, masters)
    _put(weights, best)
    block.requires_grad_(False).to(computed)
    return ReconstructionReport(steps=steps, loss_before=before, loss_after=lowest)


def _put(weights: Sequence[nn.Parameter], states: Sequence[torch.Tensor]) -> None:
    for weight, state in zip(weights, states, strict=True):
        weight.data = state


def _batch(samples: Sequence[Sample], step: int, size: int) -> Sequence[Sample]:
    start = step % -(-len(samples) // size) * size
    return samples[start : start + size]


def _rate(step: int, steps: int) -> float:
    warm = max(1, int(WARM_UP * steps))
    return (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)


@torch.enable_grad()
def _step(
    block: nn.Module,
    weights: Sequence[nn.Parameter],
    masks: Sequence[torch.Tensor],
    batch: Sequence[Sample],
    optimiser: torch.optim.Optimizer,
    dtype: torch.dtype,
) -> None:
    for weight in weights:
        weight.requires_grad_(True)
    for sample in batch:
        (_error(block, sample, dtype) / len(batch)).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    optimiser.zero_grad()
    for weight, mask in zip(weights, masks, strict=True):
        weight.data.mul_(mask)


def _loss(block: nn.Module, samples: Sequence[Sample], dtype: torch.dtype) -> float:
    with torch.no_grad():
        return sum(float(_error(block, sample, dtype)) for sample in samples) / len(samples)


def _error(block: nn.Module, sample: Sample, dtype: torch.dtype) -> torch.Tensor:
    """Return the mean squared error; on an accelerator products run in bfloat16, weights stay float32.

    So do those of a float16 model: in float16 the gradients of a mean over a whole window would underflow.
    """
    device = sample.hidden.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=dtype != torch.float32):
        output = run(block, sample.hidden, sample.call)
    return functional.mse_loss(output.float(), sample.target.float())
