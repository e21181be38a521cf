"""Routed experts as one module each, where stock transformers fuses all of a block into 3-D tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pruning_core.families.base import Family

Gated = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""What an expert makes of its gate's and its up projection's outputs, each [tokens, neurons]."""


class StackedLinear(nn.Module):
    """One expert's matrix within parameters that hold those of all experts; it owns nothing.

    The parameters are looked up at every use: loading a block's weights replaces them.

    Args:
        owner: Module with the parameters.
        name: Of the weights, [experts, in, out].
        expert: Which expert.
        rows: Which outputs.
    """

    def __init__(self, owner: nn.Module, name: str, expert: int, rows: slice) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, or it would become a module of this one
        self._name = name
        self._expert = expert
        self._rows = rows

    @property
    def weight(self) -> torch.Tensor:
        """The matrix as [out, in], sharing memory with the parameter."""
        return self._owner[0].get_parameter(self._name)[self._expert].T[self._rows]

    @property
    def bias(self) -> torch.Tensor:
        """Its bias, [out], sharing memory with the parameter."""
        return self._owner[0].get_parameter(f"{self._name}_bias")[self._expert][self._rows]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map [tokens, in] to [tokens, out]."""
        return functional.linear(hidden, self.weight, self.bias)


class Expert(nn.Module):
    """One gated feed-forward.

    Args:
        matrices: Gate, up and down projection, by the names that the family's table uses.
        gated: What happens between them.
    """

    def __init__(self, matrices: dict[str, nn.Module], gated: Gated) -> None:
        super().__init__()
        for name, matrix in matrices.items():
            self.add_module(name, matrix)
        self._names = tuple(matrices)
        self._gated = (gated,)  # in a tuple, or an activation would become a module of this one

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map [tokens, hidden] to [tokens, hidden]."""
        gate, up, down = (self.get_submodule(name) for name in self._names)
        result: torch.Tensor = down(self._gated[0](gate(hidden), up(hidden)))
        return result


class UnfusedExperts(nn.ModuleList):
    """The experts of one block; the same function as transformers' fused module."""

    def forward(
        self, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """Sum the routed experts' outputs.

        Args:
            hidden: [tokens, hidden].
            top_k_index: [tokens, k], which experts each token goes to.
            top_k_weights: [tokens, k], their weights.
        """
        result = torch.zeros_like(hidden)
        for index, expert in enumerate(self):
            token, slot = torch.where(top_k_index == index)
            if token.numel():
                output = expert(hidden[token]) * top_k_weights[token, slot, None]
                result.index_add_(0, token, output.to(result.dtype))
        return result


def unfuse(block: nn.Module, family: Family, config: Any) -> None:
    """Replace a block's fused experts, in place; a block of another kind stays as it is."""
    if not family.experts:
        return
    fused: Any = block.get_submodule(family.expert_list)
    experts = _stacked(fused, family) if family.stacked else _separate(fused, family, config)
    block.set_submodule(family.expert_list, experts)


def _separate(fused: Any, family: Family, config: Any) -> UnfusedExperts:
    """Return experts with parameters of their own, for checkpoints that store them so."""
    hidden, neurons = config.hidden_size, getattr(config, family.width_keys["neurons"])
    shapes = ((hidden, neurons), (hidden, neurons), (neurons, hidden))

    activation: nn.Module = fused.act_fn

    def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = activation(gate) * up
        return result

    def expert() -> Expert:
        linear = [nn.Linear(*shape, bias=False) for shape in shapes]
        return Expert(dict(zip(_names(family), linear, strict=True)), gated)

    experts = UnfusedExperts(expert() for _ in range(fused.num_experts))
    return experts.to(fused.down_proj.dtype)


def _stacked(fused: Any, family: Family) -> UnfusedExperts:
    """Return experts that are views of the fused module's parameters, which keep their names."""
    limit, alpha = float(fused.limit), float(fused.alpha)

    def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate = gate.clamp(max=limit)
        return (up.clamp(-limit, limit) + 1) * (gate * torch.sigmoid(gate * alpha))

    owner = UnfusedExperts()
    for name, parameter in fused.named_parameters():
        owner.register_parameter(name, parameter)
    owner.extend(
        Expert(dict(_views(owner, family, expert)), gated) for expert in range(fused.num_experts)
    )
    return owner


def _views(owner: nn.Module, family: Family, expert: int) -> Iterable[tuple[str, StackedLinear]]:
    """Yield one expert's matrices by name: gate, up, down."""
    for parameter, matrices in family.stacked.items():
        name = parameter.rpartition(".")[2]
        for first, matrix in enumerate(matrices):
            rows = slice(first, None, len(matrices))
            yield matrix.rpartition(".")[2], StackedLinear(owner, name, expert, rows)


def _names(family: Family) -> tuple[str, ...]:
    """Return the names of an expert's gate, up and down projection."""
    matrices = (*family.feedforward.inputs, family.feedforward.output)
    return tuple(matrix.rpartition(".")[2] for matrix in matrices)
