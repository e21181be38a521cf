"""The walk of a job that removes units, and the cut that it ends with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from pruning_core.decide.contextual import write_companions
from pruning_core.decide.unit import UnitDecision
from pruning_core.evaluate import verify
from pruning_core.export.checkpoint import Changes
from pruning_core.export.cut import Cut, residual_factors, scaled
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.run import Run
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.ledger import Ledger
from pruning_core.prune.units import UnitPruner
from pruning_core.prune.walk import Walk
from pruning_core.structure.layout import Role
from pruning_core.tokenizers import shrink


@dataclass
class UnitWalk:
    """What removes units.

    Attributes:
        plan: What goes.
        walk: The pass over all blocks.
        outside: Tensors outside the blocks that hold zeros now, by stored name.
        probe: int64 [1, seq], tokens that stay, whose logits vouch for the result.
    """

    plan: UnitPlan
    walk: Walk
    outside: Mapping[str, torch.Tensor]
    probe: torch.Tensor

    @classmethod
    def of(cls, run: Run, model: StreamedModel, fingerprint: str) -> UnitWalk:
        """Decide what goes and prepare the walk; the model's embeddings get their zeros."""
        ledger = Ledger(run.work, fingerprint)
        plan = UnitDecision(model, run).make(fingerprint, begun=0 in ledger)
        run.tracker.begin("calibrating")
        dense = run.states(model) if plan.follows_dense else None
        outside = _zero_outside(model, plan)
        calibration = run.states(model) if plan.walks_text else None
        tokens = verify.probe_tokens(plan.sizes.vocabulary, run.facts.max_positions)
        probe = tokens if plan.vocabulary is None else torch.tensor(plan.vocabulary)[tokens]

        def ready(_index: int, block: nn.Module) -> None:
            _unscale(model, plan, block)

        def begin(index: int, block: nn.Module) -> UnitPruner:
            return UnitPruner(model, plan, calibration, dense, index, block, ready)

        walk = Walk(
            model=model,
            ledger=ledger,
            calibration=calibration,
            probe=Activations(model, probe),
            begin=begin,
            dense=dense,
            skipped=plan.layers if plan.removing else (),
            ready=ready,
        )
        return cls(plan, walk, outside, probe)

    @property
    def rescaled(self) -> bool:
        """Whether the result is a little off by design: rescaled norms rounded to 16 bits, or plain slicing, whose eps differs."""
        if self.plan.hidden is None or not self.plan.removing:
            return False
        return self.walk.model.stored_dtype.itemsize < 4 or not self.plan.rescales

    def renumbered(
        self, tokens: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and logits as the result numbers its tokens."""
        if self.plan.vocabulary is None or not self.plan.renumbers:
            return tokens, logits
        stays = torch.tensor(self.plan.vocabulary)
        return torch.searchsorted(stays, tokens), logits[..., stays.to(logits.device)]

    def changes(self, run: Run) -> Changes:
        """Return what the checkpoint has other than the source, beside the tensors of the blocks."""
        if not self.plan.removing:
            return Changes(files=self._zeroed(run.work / "outside.safetensors"))
        model, plan = self.walk.model, self.plan
        cut = Cut(plan, self.walk.ledger.dropped(), model.config, tied=_tied(model))
        changes = Changes(
            cut=cut,
            config=cut.config(run.facts.config),
            keeps_width=plan.sizes.hidden == plan.layout.sizes.hidden,
        )
        if plan.vocabulary is None:
            return changes
        assert changes.config is not None
        config = shrink.renumbered(changes.config, plan.vocabulary)
        return replace(changes, config=config, companions=self._tokenizer(run, plan.vocabulary))

    def _zeroed(self, path: Path) -> tuple[Path, ...]:
        """Write the tensors outside the blocks that hold zeros now."""
        if not self.outside:
            return ()
        files = self.walk.model.files
        tensors = {
            name: tensor.to("cpu", files.dtype(name)).contiguous()
            for name, tensor in self.outside.items()
        }
        save_file(tensors, path)
        return (path,)

    @staticmethod
    def _tokenizer(run: Run, stays: tuple[int, ...]) -> Path:
        """Return a folder with the tokenizer of the tokens that stay and all that lies beside it."""
        folder = run.work / "companions"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_companions(run.source, folder, stays)
        return folder


def _zero_outside(model: StreamedModel, plan: UnitPlan) -> dict[str, torch.Tensor]:
    """Write zeros where embeddings and head touch residual dimensions that go, and tokens in `mode: zero`."""
    layout, found = plan.layout, {}
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
                    found[stored] = parameter.data
    _unscale_outside(model, plan)
    return {} if plan.removing else found


def _dropped_tokens(plan: UnitPlan) -> torch.Tensor | None:
    if plan.vocabulary is None or plan.removing:
        return None
    stays = torch.zeros(plan.layout.sizes.vocabulary, dtype=torch.bool)
    stays[list(plan.vocabulary)] = True
    return (~stays).nonzero().flatten()


def _factors(model: StreamedModel, plan: UnitPlan) -> Mapping[Role | None, float]:
    """Return what plain slicing, without rescaling, leaves of embeddings and norms, by role; empty where rescaled."""
    if plan.rescales or not plan.removing:
        return {}
    factors = residual_factors(plan, model.stored_dtype, tied=_tied(model))
    return dict(factors.items())


def _tied(model: StreamedModel) -> bool:
    """Tell whether head and embedding are one parameter: two that differ in the files are not, whatever the configuration says."""
    head = model.model.get_output_embeddings()
    return head.weight is model.model.get_input_embeddings().weight


def _unscale(model: StreamedModel, plan: UnitPlan, block: nn.Module) -> None:
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
    found = {
        model.model.get_parameter(plan.layout.module_name(stored)): tensor.role
        for stored, tensor in plan.layout.tensors.items()
        if tensor.block is None and tensor.further is None and tensor.role in factors
    }
    for parameter, role in found.items():
        shift = offset if role == "final_norm" else 0.0
        parameter.data.copy_(scaled(parameter.data, 1 / factors[role], shift))
