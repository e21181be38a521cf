"""An attention or feed-forward that is computed once puts out what it would when computed again, for every family."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pruning_core.checkpoints.facts import inspect
from pruning_core.families import FAMILIES
from pruning_core.model.cached_module import Replay
from pruning_core.model.hidden_states import Activations
from pruning_core.model.matrix import input_groups
from pruning_core.model.recorder import record
from pruning_core.model.streamed import StreamedModel
from pruning_core.prune.units import UnitPruner
from pruning_core.spec.prune import PruneSpec
from pruning_core.structure.layout import layout_of
from pruning_core.units.unit_groups import unit_groups
from tests import tiny
from tests.pruning_core.runs import save_with_biases, stored

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)


CASES = [(name, "attention") for name in MODEL_TYPES] + [
    (name, "feedforward")
    for family in FAMILIES
    for name in family.model_types
    if "." in family.feedforward.output and not family.experts
]


@pytest.mark.parametrize(("model_type", "part"), CASES)
def test_outputs_are_those_of_the_pruned_module(model_type: str, part: str, tmp_path: Path) -> None:
    source = save_with_biases(tmp_path / "m", model_type)
    facts = inspect(source)
    model = StreamedModel(source, facts, torch.device("cpu"))
    attention, feedforward = model.family.attention, model.family.feedforward
    in_tuple = part == "attention"
    first, last = (
        (attention.queries, attention.output)
        if in_tuple
        else (feedforward.inputs[0], feedforward.output)
    )
    with torch.no_grad(), model.block(0) as block:
        plain, replayed = (Activations(model, tiny.tokens(5, 16), batch_tokens=32) for _ in "ab")
        groups = input_groups(block, model.family, model.config)
        matrices = {matrix.name: matrix for group in groups for matrix in group.matrices}
        (reading,) = (group for group in groups if group.matrices[0].name == last)
        module, output = (block.get_submodule(name) for name in (last.rpartition(".")[0], last))
        replay = Replay(module, output, len(replayed.batches), in_tuple=in_tuple)
        with replay.watching():
            record(0, block, [reading], replayed, [{"column_mean"}])
        for units in unit_groups(matrices, model.family, layout_of(facts)):
            if units.readout.name == last:
                units.zero(torch.tensor([0]))
        matrices[last].view.mul_(1.5)  # as a fit does

        def forbidden(*_args: Any) -> None:
            raise AssertionError("the module reads its input again")

        handle = matrices[first].module.register_forward_pre_hook(forbidden)
        with replay():
            replayed.advance(0, block)
        handle.remove()
        plain.advance(0, block)
    for one, other in zip(plain.hidden, replayed.hidden, strict=True):
        torch.testing.assert_close(one, other)


NEURONS = {"name": "wanda_sp", "units": ["neurons"]}


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ({"method": "wanda_sp", "refinement": ["refit"], "sparsity": 0.3}, [1, 3]),
        ({"method": NEURONS, "refinement": ["refit"], "sparsity": 0.2}, [0, 2]),
        ({"method": {"name": "goa", "reconstruct": True}, "sparsity": 0.3}, [2, 4]),
        ({"method": "wanda_sp", "sparsity": 0.3}, [0, 0]),
    ],
    ids=["refit", "refit of neurons", "reconstruct", "no fit"],
)
def test_a_job_goes_on_with_what_the_pruned_block_puts_out(
    asked: dict[str, Any], taken: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passes take what earlier ones kept of attention and feed-forward; so does the advance but in the first block."""
    advance, replay = UnitPruner.advance, Replay.__call__
    replays = [0]

    def checked(self: UnitPruner, calibration: Activations) -> None:
        plain = copy.copy(calibration)
        plain.hidden = list(plain.hidden)
        advance(self, calibration)
        plain.advance(self.index, self.module)
        for one, other in zip(plain.hidden, calibration.hidden, strict=True):
            torch.testing.assert_close(one, other)
        replays.append(0)

    @contextmanager
    def counted(self: Replay) -> Iterator[None]:
        replays[-1] += 1
        with replay(self):
            yield

    monkeypatch.setattr(UnitPruner, "advance", checked)
    monkeypatch.setattr(Replay, "__call__", counted)
    source = save_with_biases(tmp_path / "m", "llama")
    spec = PruneSpec.model_validate(asked | {"evaluation": {"tasks": []}})
    stored(source, spec, tmp_path / "out", tiny.tokens(5, 16))
    assert replays[: len(taken)] == taken
