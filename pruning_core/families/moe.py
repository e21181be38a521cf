"""Mixtral: routed experts. Stock transformers fuses them into 3-D tensors; here each is a module of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pruning_core.families.base import Family, Fold
from pruning_core.families.llama import ATTENTION, ATTENTION_FOLD


class Expert(nn.Module):
    """One gated feed-forward, with the names that the checkpoint uses: w1 gate, w3 up, w2 down."""

    def __init__(self, hidden: int, intermediate: int, activation: nn.Module) -> None:
        super().__init__()
        self.w1 = nn.Linear(hidden, intermediate, bias=False)
        self.w2 = nn.Linear(intermediate, hidden, bias=False)
        self.w3 = nn.Linear(hidden, intermediate, bias=False)
        self.activation = activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map [tokens, hidden] to [tokens, hidden]."""
        result: torch.Tensor = self.w2(self.activation(self.w1(hidden)) * self.w3(hidden))
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


def _unfuse(block: nn.Module, config: Any) -> None:
    fused: Any = block.get_submodule("mlp.experts")
    sizes = config.hidden_size, config.intermediate_size
    experts = UnfusedExperts(Expert(*sizes, fused.act_fn) for _ in range(config.num_local_experts))
    block.set_submodule("mlp.experts", experts.to(fused.down_proj.dtype))


MIXTRAL = Family(
    name="mixtral",
    model_types=("mixtral",),
    blocks="model.layers",
    inputs=(*ATTENTION, ("mlp.experts.*.w1", "mlp.experts.*.w3"), ("mlp.experts.*.w2",)),
    folds=(
        ATTENTION_FOLD,
        Fold("mlp.experts.*.w2", ("mlp.experts.*.w1", "mlp.experts.*.w3")),
    ),
    file_names=((".mlp.", ".block_sparse_moe."),),
    prepare=_unfuse,
)
