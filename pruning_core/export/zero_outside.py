"""Zeros in what lies outside the blocks, and norms as plain slicing leaves them: done to the dense model before the walk."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pruning_core.export.cut import residual_factors, scaled
from pruning_core.model.streamed import StreamedModel
from pruning_core.plans.unit import UnitPlan
from pruning_core.structure.spans import Role


def zero_outside(model: StreamedModel, plan: UnitPlan) -> dict[str, torch.Tensor]:
    """Write zeros where embeddings and head touch residual dimensions that go, and tokens in `mode: zero`.

    Returns:
        The tensors outside the blocks that hold zeros now, by stored name; none where they are cut later.
    """
    layout = plan.layout
    zeroed: dict[str, torch.Tensor] = {}
    tokens = _dropped_tokens(plan)
    for stored, tensor in layout.tensors.items():
        if tensor.block is not None or tensor.further is not None or len(tensor.axes) < 2:
            continue
        parameter = model.model.get_parameter(layout.module_name(stored))
        for axis, spans in enumerate(tensor.axes):
            for span in spans:
                gone = plan.hidden if span.kind == "hidden" else None
                gone = tokens if span.kind == "vocabulary" else gone
                if gone is not None:
                    parameter.data.index_fill_(axis, gone.to(parameter.device), 0)
                    zeroed[stored] = parameter.data
    _unscale_outside(model, plan)
    return {} if plan.removing else zeroed


def _dropped_tokens(plan: UnitPlan) -> torch.Tensor | None:
    if plan.vocabulary is None or plan.removing:
        return None
    stays = torch.zeros(plan.layout.sizes.vocabulary, dtype=torch.bool)
    stays[list(plan.vocabulary)] = True
    return (~stays).nonzero().flatten()


def _factors(model: StreamedModel, plan: UnitPlan) -> Mapping[Role | None, float]:
    """Return what plain slicing, without rescaling, leaves of embeddings and norms, by role; empty where rescaled."""
    if plan.params.rescales or not plan.removing:
        return {}
    factors = residual_factors(plan, model.stored_dtype, tied=tied(model))
    return dict(factors.items())


def tied(model: StreamedModel) -> bool:
    """Tell whether head and embedding are one parameter: two that differ in the files are not, whatever the configuration says."""
    head = model.model.get_output_embeddings()
    return head.weight is model.model.get_input_embeddings().weight


def unscale(model: StreamedModel, plan: UnitPlan, block: nn.Module) -> None:
    """Give a block's norms what plain slicing gives them."""
    factor = _factors(model, plan).get("norm")
    if factor is None:
        return
    offset = 1.0 if model.family.norm == "rms_plus_one" else 0.0
    for norm in model.family.norms:
        weight = block.get_submodule(norm).get_parameter("weight")
        weight.data = scaled(weight.data, 1 / factor, offset)


def _unscale_outside(model: StreamedModel, plan: UnitPlan) -> None:
    factors = _factors(model, plan)
    offset = 1.0 if model.family.norm == "rms_plus_one" else 0.0
    # A tied head is one parameter of two names
    roles = {
        model.model.get_parameter(plan.layout.module_name(stored)): tensor.role
        for stored, tensor in plan.layout.tensors.items()
        if tensor.block is None and tensor.further is None and tensor.role in factors
    }
    for parameter, role in roles.items():
        shift = offset if role == "final_norm" else 0.0
        parameter.data.copy_(scaled(parameter.data, 1 / factors[role], shift))
