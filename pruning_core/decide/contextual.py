"""What contextual pruning decides before the walk: tokens, and neurons and heads by share or by threshold."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pruning_core.checkpoints.companions import companions
from pruning_core.decide import token_counts
from pruning_core.decide.observe import Scored, dense_scores
from pruning_core.model.matrix import input_groups
from pruning_core.pipeline.run import Run
from pruning_core.plans.low_activation import Masks, quiet
from pruning_core.plans.registry import unit_score
from pruning_core.plans.unit import UnitPlan
from pruning_core.prune.walk import forward
from pruning_core.spec.calibration import SELF_TASK
from pruning_core.spec.unit_methods import Contextual, InnerKind
from pruning_core.structure.layout import Sizes
from pruning_core.structure.sizes import SLACK, inner
from pruning_core.text.windows import Texts
from pruning_core.tokenizers import shrink
from pruning_core.tokenizers.load import load_tokenizer
from pruning_core.unit_methods import contextual

if TYPE_CHECKING:
    from pruning_core.decide.unit import UnitDecision


def decide(decision: UnitDecision, params: Contextual) -> UnitPlan:
    """Return the plan.

    Raises:
        ModelInvalid: tokens are to go and the tokenizer, or what names its ids, cannot be renumbered.
        SizeUnreachable: nothing would go.
    """
    plan = decision.plan
    if "vocabulary" in decision.kinds:
        plan = _without_tokens(decision, params)
    kinds = inner(decision.kinds)
    if kinds and not plan.removing and params.decides_amount:
        plan = _quiet(decision, plan, params)
    elif kinds:
        plan = _without_units(decision, plan, params, kinds)
    decision.refuse_nothing(plan)
    return plan


def write_companions(source: Path, folder: Path, stays: tuple[int, ...]) -> None:
    """Write the tokenizer of the tokens that stay and all that lies beside it.

    Args:
        source: Folder of the dense model.
        folder: Empty folder.
        stays: Token ids.

    Raises:
        ModelInvalid: something cannot be renumbered.
    """
    for name in companions(source):
        if name not in shrink.FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, folder / name)
    generation = folder / "generation_config.json"
    if generation.is_file():
        content = shrink.renumbered(json.loads(generation.read_bytes()), stays)
        generation.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shrink.shrink(source, folder, stays)


def _without_tokens(decision: UnitDecision, params: Contextual) -> UnitPlan:
    tokens, plan, run = _tokens(decision, params), decision.plan, decision.run
    if plan.removing:
        # What the walk's end would stumble over comes to light before its start
        shrink.renumbered(run.facts.config, tokens)
        run.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=run.work) as folder:
            write_companions(run.source, Path(folder), tokens)
    return replace(plan, vocabulary=tokens, sizes=replace(plan.sizes, vocabulary=len(tokens)))


def _without_units(
    decision: UnitDecision, plan: UnitPlan, params: Contextual, kinds: tuple[InnerKind, ...]
) -> UnitPlan:
    if not params.decides_amount and _reached(decision, plan.sizes):
        decision.warnings.append(
            "Tokens alone reach the amount that was asked for; nothing else goes."
        )
        return plan
    scores = _scores(decision, params, kinds)
    if params.decides_amount:
        sizes = _by_threshold(decision, scores, plan.sizes, params)
    else:
        sizes = decision.target.solve(kinds, plan.sizes)
    return replace(plan, sizes=sizes, inner=decision.lowest(scores, sizes))


def _scores(decision: UnitDecision, params: Contextual, kinds: tuple[InnerKind, ...]) -> Scored:
    return dense_scores(
        decision.model,
        decision.layout,
        decision.states(),
        unit_score(params),
        kinds,
        decision.observing(),
    )


def _reached(decision: UnitDecision, sizes: Sizes) -> bool:
    """Tell whether the tokens that go leave the model as small as it was asked for."""
    target = decision.target
    return target.weigh(sizes) <= (1 + SLACK) * target.size


def _tokens(decision: UnitDecision, params: Contextual) -> tuple[int, ...]:
    """Return the token ids that stay: the frequent ones and what must; more where less is to go."""
    counts, folder = _counts(decision), decision.run.source
    frequent = contextual.tokens_to_keep(counts, params).nonzero().flatten().tolist()
    spoken = token_counts.template_ids(load_tokenizer(folder))
    tokens = shrink.kept_ids(folder, [*frequent, *spoken])
    room = _token_room(decision)
    if room is not None and len(tokens) < room:
        there = set(tokens)
        rest = [one for one in _by_frequency(counts) if one not in there]
        tokens = shrink.kept_ids(folder, [*tokens, *rest[: room - len(tokens)]])
    return tokens


def _counts(decision: UnitDecision) -> torch.Tensor:
    """Return how often each token occurs in all calibration text that was read, and in the samples at least."""
    run, size = decision.run, decision.run.facts.vocab_size
    sampled = token_counts.counted(
        (row for group in decision.windows().groups for row in group.tolist()), size
    )
    if run.texts is None:
        return sampled
    return torch.maximum(sampled, token_counts.counted(_every_item(run, run.texts), size))


def _every_item(run: Run, texts: Texts) -> Iterator[list[int]]:
    """Yield the tokens of every item of the tasks that calibrate, and tell how many are done."""
    spec = run.spec.calibration
    names = [task.name for task in spec.tasks if task.name != SELF_TASK]
    total = sum(len(run.sources.data(name, "calibration").items) for name in names)
    run.tracker.begin("calibrating", total, unit="item", key="counting")
    rows = chain.from_iterable(texts.every_item(name, spec) for name in names)
    for done, row in enumerate(rows, start=1):
        yield row
        run.tracker.step(done)


def _token_room(decision: UnitDecision) -> int | None:
    """Return how many tokens may stay at least, where the job names how much goes in all."""
    spec = decision.run.spec
    if spec.sparsity is None and spec.budget is None:
        return None
    target, whole = decision.target, decision.layout.sizes
    each = target.weigh(whole) - target.weigh(replace(whole, vocabulary=whole.vocabulary - 1))
    return whole.vocabulary - (target.weigh(whole) - target.size) // each


def _by_frequency(counts: torch.Tensor) -> list[int]:
    """Return all token ids, the most frequent first, of equals the lower: tokenizers learn frequent tokens early."""
    found: list[int] = counts.argsort(stable=True, descending=True).tolist()
    return found


def _by_threshold(
    decision: UnitDecision, scores: Scored, sizes: Sizes, params: Contextual
) -> Sizes:
    """Return the sizes at which every block loses the mean of what the threshold takes from all."""
    for kind in inner(decision.kinds):
        found = [one for (_, name), one in scores.items() if name.startswith(kind)]
        taken = sum(int(contextual.below(one, params).sum()) for one in found) / len(found)
        sizes = decision.legal_after(kind, taken, sizes)
    return sizes


def _quiet(decision: UnitDecision, plan: UnitPlan, params: Contextual) -> UnitPlan:
    """Apply the authors' own rules, which zero single rows and columns, and neurons, by the threshold."""
    masks: dict[tuple[int, str], Masks] = {}
    chosen: dict[tuple[int, str], torch.Tensor] = {}
    kinds, model = inner(decision.kinds), decision.model
    if "kv_groups" in kinds:
        states = decision.states()

        def visit(index: int, block: Any) -> None:
            groups = input_groups(block, model.family, model.config)
            bounds = {"absolute": params.absolute, "relative": params.relative}
            for name, found in quiet(index, block, groups, states, **bounds).items():
                masks[index, name] = found

        forward(model, states, decision.observing(), visit)
    if "neurons" in kinds:
        for key, found in _scores(decision, params, ("neurons",)).items():
            chosen[key] = contextual.below(found, params).nonzero().flatten()
    return replace(
        plan,
        quiet={key: one for key, one in masks.items() if any(map(len, one))},
        inner={key: one for key, one in chosen.items() if len(one)},
    )
