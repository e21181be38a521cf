"""The walk of a job that zeros single weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning_core.decide.element import Decision
from pruning_core.evaluate import verify
from pruning_core.export.checkpoint import UNCHANGED, Changes
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.job_walk import Decided
from pruning_core.pipeline.run import Run
from pruning_core.prune.elements import element_walk
from pruning_core.prune.ledger import Ledger
from pruning_core.prune.walk import Walk


@dataclass(frozen=True)
class ElementWalk:
    """What zeros single weights.

    Attributes:
        walk: The pass over all blocks.
        decided: What was decided before it.
        probe: int64 [1, seq], tokens whose logits vouch for the result.
    """

    walk: Walk
    decided: Decided
    probe: torch.Tensor
    cuts: bool = False
    rescales: bool = False

    @classmethod
    def of(cls, run: Run, model: StreamedModel, fingerprint: str) -> ElementWalk:
        """Search and allocate where that is asked for, and prepare the walk."""
        ledger = Ledger(run.work, fingerprint)
        decision = Decision(model, run.spec, run.windows, run.search_text, run.tracker)
        plan, search = decision.make(run.work, fingerprint, begun=0 in ledger)
        run.tracker.begin("calibrating")
        by_window = 1 if run.spec.reconstruction else None
        probe = verify.probe_tokens(run.facts.vocab_size, run.facts.max_positions)
        walk = element_walk(
            model,
            plan,
            ledger,
            run.states(model, batch_tokens=by_window),
            Activations(model, probe),
            dense=run.states(model, batch_tokens=1) if run.spec.reconstruction else None,
            alive=run.tracker.alive,
        )
        return cls(walk, Decided(search=search, ratios=plan.ratios), probe)

    def changes(self, _run: Run) -> Changes:
        """Return that nothing beside the tensors of the blocks changed."""
        return UNCHANGED

    def renumbered(
        self, tokens: torch.Tensor, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both as they are: tokens keep their numbers."""
        return tokens, logits
