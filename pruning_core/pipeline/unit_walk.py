"""The walk of a job that removes units, and the cut that it ends with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from pruning_core.decide.dense_model import DenseModel
from pruning_core.decide.unit import decide
from pruning_core.evaluate import verify
from pruning_core.export.checkpoint import Changes
from pruning_core.export.cut import Cut
from pruning_core.export.zero_outside import tied, unscale, zero_outside
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.job_walk import Decided
from pruning_core.pipeline.run import Run
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.ledger import Ledger
from pruning_core.prune.units import UnitPruner
from pruning_core.prune.walk import Walk
from pruning_core.tokenizers.companions import write_companions
from pruning_core.tokenizers.renumber import renumbered


def dense_model(run: Run, model: StreamedModel) -> DenseModel:
    """Return the dense model as methods that remove units ask it."""
    return DenseModel(
        model=model,
        source=run.source,
        facts=run.facts,
        spec=run.spec,
        work=run.work,
        calibration=run.windows,
        reader=run.reader,
        data_used=run.data_used,
        tracker=run.tracker,
    )


@dataclass(frozen=True)
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
        plan = decide(dense_model(run, model), fingerprint, begun=0 in ledger)
        run.tracker.begin("calibrating")
        dense = run.states(model) if plan.follows_dense else None
        outside = zero_outside(model, plan)
        calibration = run.states(model) if plan.walks_text else None
        tokens = verify.probe_tokens(plan.sizes.vocabulary, run.facts.max_positions)
        probe = tokens if plan.vocabulary is None else torch.tensor(plan.vocabulary)[tokens]

        def prepare_block(_index: int, block: nn.Module) -> None:
            unscale(model, plan, block)

        def make_pruner(index: int, block: nn.Module) -> UnitPruner:
            return UnitPruner(model, plan, calibration, dense, index, block, prepare_block)

        walk = Walk(
            model=model,
            ledger=ledger,
            calibration=calibration,
            probe=Activations(model, probe),
            make_pruner=make_pruner,
            dense=dense,
            skipped=plan.layers if plan.removing else (),
            prepare_block=prepare_block,
        )
        return cls(plan, walk, outside, probe)

    @property
    def decided(self) -> Decided:
        """What was decided before the walk."""
        return Decided(units=self.plan)

    @property
    def cuts(self) -> bool:
        """Whether tensors of the result are smaller."""
        return self.plan.removing

    @property
    def rescales(self) -> bool:
        """Whether the result is a little off by design: rescaled norms rounded to 16 bits, or plain slicing, whose eps differs."""
        if self.plan.hidden is None or not self.plan.removing:
            return False
        return self.walk.model.stored_dtype.itemsize < 4 or not self.plan.params.rescales

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
        cut = Cut(plan, self.walk.ledger.dropped(), model.config, tied=tied(model))
        changes = Changes(
            cut=cut,
            config=cut.config(run.facts.config),
            keeps_width=plan.sizes.hidden == plan.layout.sizes.hidden,
        )
        if plan.vocabulary is None:
            return changes
        assert changes.config is not None
        config = renumbered(changes.config, plan.vocabulary)
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
