"""A model in training: which weights move, under which masks, and the dtypes that its checkpoint stores them in.

Low-rank changes (Hu et al., arXiv 2106.09685) are multiplied by the mask before they are added, in training too: what is
trained, validated and merged is W + keep * (alpha / rank) B A. That product is as large as W, so they save the optimiser's
memory and not the time of full training, and dropout of inputs has no place in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from pruning_core.spec.recovery import Recovery


class _LowRank(nn.Module):
    """Adds a low-rank change, under the mask; in evaluation the sum has gone through the stored dtype."""

    def __init__(
        self,
        weight: torch.Tensor,
        rank: int,
        scale: float,
        *,
        keep: torch.Tensor | None,
        stored: torch.dtype,
    ) -> None:
        super().__init__()
        *experts, rows, columns = weight.shape
        rank = min(rank, rows, columns)
        bound = 1 / math.sqrt(columns)
        self.down = nn.Parameter(torch.empty(*experts, rank, columns).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(*experts, rows, rank))
        self.to(weight.device)
        self.keep = keep
        self.scale = scale
        self.stored = stored

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the effective weight, shaped like the given one: [..., rows, columns]."""
        with torch.autocast(weight.device.type, enabled=False):
            change = self.scale * (self.up @ self.down)
            if self.keep is not None:
                change = change * self.keep
            total = weight + change
            return total if self.training else total.to(self.stored).to(total.dtype)


class TrainableModel:
    """A model in training: what moves, under which masks, and how the checkpoint will store it.

    Args:
        model: In float32; changed in place.
        params: Full or low-rank.
        masked: Names of parameters whose zeros stay zero.
        stored: The dtype that the checkpoint stores each parameter in, by name.
        blocks: Path of the blocks, whose matrices get the low-rank changes.

    Attributes:
        trained: The parameters that the optimiser moves, by name.
    """

    def __init__(
        self,
        model: Any,
        params: Recovery,
        *,
        masked: Iterable[str],
        stored: Mapping[str, torch.dtype],
        blocks: str,
    ) -> None:
        self.model = model
        self._stored = stored
        self._keep = {name: model.get_parameter(name).data != 0 for name in masked}
        self._low_rank = params.method == "lora"
        self._changed = [name for name, _ in model.named_parameters()]
        model.requires_grad_(not self._low_rank)
        if self._low_rank:
            self._changed = [name for name in self._changed if self._fits(name, blocks)]
            torch.manual_seed(params.seed)
            for name in self._changed:
                module, attribute = self._place(name)
                weight = getattr(module, attribute)
                options: Any = {"keep": self._keep.pop(name, None), "stored": stored[name]}
                change = _LowRank(weight, params.lora_rank, params.lora_scale, **options)
                parametrize.register_parametrization(module, attribute, change)
            self._keep.clear()
        self.trained: dict[str, nn.Parameter] = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        model.train()

    def mask_gradients(self) -> None:
        """Take no step where a weight was removed."""
        for name, keep in self._keep.items():
            gradient = self.trained[name].grad
            if gradient is not None:
                gradient.mul_(keep)

    def mask_weights(self) -> None:
        """Remove again what was removed."""
        for name, keep in self._keep.items():
            self.trained[name].data.mul_(keep)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within, the model answers as its checkpoint would: no dropout, weights gone through the stored dtypes."""
        moved = {} if self._low_rank else self.trained
        masters = {name: parameter.data for name, parameter in moved.items()}
        for name, parameter in moved.items():
            parameter.data = parameter.data.to(self._stored[name]).to(parameter.dtype)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.train()
            for name, parameter in moved.items():
                parameter.data = masters[name]

    def weights(self) -> dict[str, torch.Tensor]:
        """Return copies, on the CPU and in the stored dtypes, of all that training may have changed."""
        with torch.no_grad():
            return {
                name: getattr(*self._place(name)).detach().to("cpu", self._stored[name], copy=True)
                for name in self._changed
            }

    def settle(self, weights: Mapping[str, torch.Tensor]) -> None:
        """End the training: the model is a stock one again, with the given weights."""
        for name, weight in weights.items():
            module, attribute = self._place(name)
            if self._low_rank:
                parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
            getattr(module, attribute).data.copy_(weight)
        self.model.eval()

    def _place(self, name: str) -> tuple[nn.Module, str]:
        path, _, attribute = name.rpartition(".")
        return self.model.get_submodule(path), attribute

    def _fits(self, name: str, blocks: str) -> bool:
        shape = self.model.get_parameter(name).shape
        return name.startswith(f"{blocks}.") and len(shape) >= 2 and min(shape[-2:]) > 1
