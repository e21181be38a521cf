"""What is decided before the first block of a job that removes units: sizes, and whatever is chosen on the dense model.

It is kept on disk, so that a resumed run decides nothing again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from pruning_core.decide import contextual
from pruning_core.decide.observe import Scored, dense_scores, influences, last_states, profiles
from pruning_core.errors import ResumeMismatch, SizeUnreachable
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.pipeline.run import Run
from pruning_core.plans import unit_store
from pruning_core.plans.registry import unit_score
from pruning_core.plans.unit import UnitPlan
from pruning_core.spec.unit_methods import (
    FLAP,
    GOA,
    Contextual,
    Diet,
    InnerKind,
    LayerDrop,
    RandomUnits,
    UnitKind,
    UnitMethod,
)
from pruning_core.structure.layout import Sizes
from pruning_core.structure.sizes import (
    NAMES,
    SLACK,
    Cutter,
    Target,
    check_goa,
    check_units,
    inner,
    kept_alone,
    layout_of,
    uncompensated,
)
from pruning_core.system import device as devices
from pruning_core.text.windows import Windows
from pruning_core.unit_methods import diet, flap, layer_drop, random_units

TOKENS_PER_INPUT = 10
"""Calibration tokens that a least-squares fit should have for every input of a matrix."""


@dataclass
class UnitDecision:
    """What deciding needs.

    Attributes:
        model: The dense model.
        run: The run.
        warnings: What the user must know.
    """

    model: StreamedModel
    run: Run
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        run = self.run
        assert isinstance(run.spec.method, UnitMethod)
        assert run.spec.units is not None
        self.params: UnitMethod = run.spec.method
        self.layout = layout_of(run.facts, run.spec.output)
        check_units(run.spec, self.layout)
        self.cutter = Cutter(self.layout, run.spec.units)
        self.kinds = self.cutter.require(self.params.unit_kinds, self.params.name)
        self.warnings += kept_alone(self.cutter, self.params.unit_kinds)
        if isinstance(self.params, FLAP) and self.params.compensation == "bias":
            self.warnings += (
                f"The means of {NAMES[kind]} that go are lost: their read-out has no bias to keep them."
                for kind in uncompensated(self.layout, inner(self.kinds))
            )
        inputs = self._widest_fit()
        if inputs and self.windows().tokens < TOKENS_PER_INPUT * inputs:
            self.warnings.append(
                f"Matrices of {inputs:,} inputs are fitted on no more than {self.windows().tokens:,} calibration tokens."
                f" With fewer than {TOKENS_PER_INPUT} tokens per input a fit follows the noise of the text, or is pulled"
                " back from it and gains less: raise `samples` or `seq_len`."
            )
        self.plan = UnitPlan(
            self.params, run.spec.units, self.layout, self.layout.sizes, refit=run.spec.refit
        )

    def _widest_fit(self) -> int:
        """Return the inputs of the widest matrix that least squares fit, 0 where they fit none."""
        refits, layout = self.run.spec.refit is not None, self.layout
        if (isinstance(self.params, GOA) and self.params.reconstruct) or (
            refits and "hidden" in self.kinds
        ):
            return max(layout.input_widths)
        widths = {"neurons": layout.sizes.neurons, "kv_groups": layout.heads * layout.head_dim}
        return max((widths[kind] for kind in inner(self.kinds)), default=0) if refits else 0

    def make(self, fingerprint: str, *, begun: bool) -> UnitPlan:
        """Return the plan of the walk, from the work folder where it is there.

        Args:
            fingerprint: Of the run.
            begun: Whether blocks were pruned already, by a decision that must then be there.

        Raises:
            ResumeMismatch: it is not.
            SizeUnreachable, UnitsUnsupported: what was asked for cannot be had from this model and text.
        """
        path = self.run.work / unit_store.FILE
        plan = unit_store.read(path, fingerprint, self.plan)
        if plan is None:
            if begun:
                raise ResumeMismatch(
                    f"{self.run.work} has pruned blocks, but not what was decided before them: remove it to start again"
                )
            plan = self._decide()
            self._check(plan)
            plan = replace(plan, warnings=tuple(self.warnings))
            unit_store.write(path, fingerprint, plan)
        whole = self.layout.sizes
        loses = any(plan.sizes.of(kind) != whole.of(kind) for kind in inner(self.kinds))
        if loses and not plan.inner:
            return replace(plan, score=unit_score(self.params))
        fits = plan.inner or plan.hidden is not None
        return plan if fits else replace(plan, refit=None)

    def _decide(self) -> UnitPlan:
        match self.params:
            case Diet():
                return self._diet(self.params)
            case LayerDrop():
                return self._layers(self.params)
            case RandomUnits():
                return self._random(self.params)
            case FLAP():
                return self._flap()
            case Contextual():
                return contextual.decide(self, self.params)
            case GOA() if self.params.threshold is not None:
                return replace(self.plan, sizes=self._goa_by_threshold(self.params))
        return replace(self.plan, sizes=self.target.solve(self.kinds))

    def _check(self, plan: UnitPlan) -> None:
        """Note where the nearest legal size is not what was asked for."""
        spec = self.run.spec
        if spec.sparsity is None and spec.budget is None:
            return
        target, whole = self.target, self.layout.sizes
        found = target.weigh(plan.sizes)
        if abs(found - target.size) <= SLACK * target.weigh(whole):
            return
        if spec.sparsity is not None:
            text = f"{spec.sparsity:.1%} of the parameters were asked for, {self.cutter.share(plan.sizes):.1%} go"
        else:
            unit = "bytes" if target.in_bytes else "parameters"
            text = f"A model of {target.size:,} {unit} was asked for, it has {found:,}"
        self.warnings.append(f"{text}: the nearest legal sizes.")

    @property
    def target(self) -> Target:
        """How large the result shall be, where the job names it."""
        return Target.of(self.cutter, self.run.spec.sparsity, self.run.spec.budget)

    def states(self) -> Activations:
        """Return the states of the calibration windows before the first block."""
        found = self.run.states(self.model)
        assert found is not None
        return found

    def observing(self, passes: int = 1) -> Callable[[int], None]:
        """Return what counts the blocks of some forward passes of the dense model."""
        blocks = len(self.model.blocks)
        self.run.tracker.begin("calibrating", blocks * passes, key="observing")
        steps = iter(range(1, blocks * passes + 1))
        return lambda _index: self.run.tracker.step(next(steps))

    def windows(self) -> Windows:
        """Return the calibration windows."""
        assert self.run.windows is not None
        return self.run.windows

    def _diet(self, params: Diet) -> UnitPlan:
        if params.granularity == "units":
            return self._diet_of_units(params)
        sizes = self.target.solve(("hidden",))
        n_drop = self.layout.sizes.hidden - sizes.hidden
        by_task = self.windows().by_task
        found = profiles(
            self.model,
            by_task,
            params,
            self.run.facts.config.get("bos_token_id"),
            devices.batch_tokens(self.model.device),
            self.observing(),
            self.run.tracker.alive,
        )
        if params.granularity == "per_layer":
            blocks = range(self.layout.sizes.layers)
            masks = tuple(
                diet.merged(
                    [diet.importance(one[index : index + 1], params) for one in found.values()],
                    n_drop,
                    params,
                )
                for index in blocks
            )
            return replace(self.plan, sizes=sizes, hidden_by_block=masks)
        hidden = diet.merged(
            [diet.importance(one, params) for one in found.values()], n_drop, params
        )
        return replace(self.plan, sizes=self._of_strict(sizes, len(hidden)), hidden=hidden)

    def _of_strict(self, sizes: Sizes, dropped: int) -> Sizes:
        """Return the sizes of a strict majority, which removes what it agrees on."""
        left = self.layout.sizes.hidden - dropped
        if left == sizes.hidden:
            return sizes
        if left not in self.cutter.legal("hidden"):
            raise SizeUnreachable(
                f"A strict majority of the tasks names {dropped} of {self.layout.sizes.hidden} residual dimensions; "
                f"stock transformers loads no model of the remaining {left}.",
                suggestions=(
                    "use merge `vote`, which reaches the share asked for",
                    "use `mode: zero`",
                ),
            )
        return replace(sizes, hidden=left)

    def _diet_of_units(self, params: Diet) -> UnitPlan:
        """Vote over neurons and key-value groups, in every block, with each task's own text."""
        sizes = self.target.solve(self.kinds)
        score = unit_score(Contextual())
        by_task = self.windows().by_task
        done = self.observing(len(by_task))
        found: list[Scored] = []
        for groups in by_task.values():
            states = Activations(self.model, groups, alive=self.run.tracker.alive)
            found.append(dense_scores(self.model, self.layout, states, score, self.kinds, done))
        chosen = {}
        for key in found[0]:
            n_drop = self._n_drop(key[1], sizes)
            if n_drop:
                chosen[key] = diet.merged([task[key] for task in found], n_drop, params)
        return replace(self.plan, sizes=sizes, inner=chosen)

    def _layers(self, params: LayerDrop) -> UnitPlan:
        sizes = self.target.solve(("layers",))
        n_drop = self.layout.sizes.layers - sizes.layers
        if params.contiguous:
            gone = layer_drop.run_of(
                last_states(self.model, self.states(), self.observing()), n_drop
            )
        elif params.rescore:
            gone = self._rescored(n_drop)
        else:
            found = influences(self.model, self.states(), (), self.observing())
            gone = layer_drop.lowest(found, n_drop)
        return replace(self.plan, sizes=sizes, layers=tuple(gone.tolist()))

    def _rescored(self, n_drop: int) -> torch.Tensor:
        gone: list[int] = []
        done = self.observing(n_drop)
        for _ in range(n_drop):
            found = influences(self.model, self.states(), gone, done)
            found[gone] = torch.inf
            gone += layer_drop.lowest(found, 1).tolist()
        return torch.tensor(sorted(gone))

    def _random(self, params: RandomUnits) -> UnitPlan:
        sizes = self.target.solve(self.kinds)
        plan = replace(self.plan, sizes=sizes)
        for kind in ("hidden", "layers"):
            if kind in self.kinds:
                size = self.layout.sizes.of(kind)
                order = random_units.shuffled(size, params, 0).argsort()
                gone = order[: size - sizes.of(kind)].sort().values
                value: Any = gone if kind == "hidden" else tuple(gone.tolist())
                return replace(plan, **{kind: value})
        return plan

    def _flap(self) -> UnitPlan:
        score = unit_score(self.params)
        scores = dense_scores(
            self.model, self.layout, self.states(), score, self.kinds, self.observing()
        )
        target = self.target
        both = len(self.kinds) > 1
        sizes = self._flap_sizes(scores, target) if both else target.solve(self.kinds)
        return replace(self.plan, sizes=sizes, inner=self.lowest(scores, sizes))

    def _flap_sizes(self, scores: Scored, target: Target) -> Sizes:
        """Return the sizes at which groups and neurons are cut by one threshold."""
        whole = self.layout.sizes
        curves: dict[InnerKind, list[torch.Tensor]] = {
            kind: [found for (_, name), found in scores.items() if name.startswith(kind)]
            for kind in ("kv_groups", "neurons")
        }
        weights: dict[InnerKind, int] = {
            kind: target.weigh(whole) - target.weigh(replace(whole, **{kind: whole.of(kind) - 1}))
            for kind in curves
        }
        gone = flap.groups_to_drop(curves, weights, target.weigh(whole) - target.size)
        legal = (*self.cutter.legal("kv_groups"), whole.kv_groups)
        groups = min(reversed(legal), key=lambda one: abs(one - (whole.kv_groups - gone)))
        return target.with_groups(groups, whole)

    def legal_after(self, kind: UnitKind, taken: float, sizes: Sizes) -> Sizes:
        """Return the sizes with the legal number of one kind that is nearest to all but `taken`."""
        whole = self.layout.sizes.of(kind)
        legal = (*self.cutter.legal(kind), whole)
        return replace(
            sizes, **{kind: min(reversed(legal), key=lambda n: abs(n - (whole - taken)))}
        )

    def refuse_nothing(self, plan: UnitPlan) -> None:
        """Refuse a plan by which nothing goes.

        Raises:
            SizeUnreachable: it is one.
        """
        if plan.sizes != self.layout.sizes or plan.inner or plan.quiet:
            return
        names = " and ".join(NAMES[kind] for kind in self.kinds)
        where = " that could go from every block" if plan.removing and inner(self.kinds) else ""
        raise SizeUnreachable(
            f"The threshold takes no {names}{where}.",
            suggestions=("raise the threshold", "calibrate on text of the domain alone"),
            pointer="/prune/method",
        )

    def _goa_by_threshold(self, params: GOA) -> Sizes:
        threshold = params.threshold
        assert threshold is not None
        scores = dense_scores(
            self.model,
            self.layout,
            self.states(),
            replace(unit_score(params), needs=frozenset(), input_needs=frozenset()),
            self.kinds,
            self.observing(),
        )
        taken = sum(int((one < threshold).sum()) for one in scores.values()) / len(scores)
        sizes = self.legal_after("kv_groups", taken, self.layout.sizes)
        self.refuse_nothing(replace(self.plan, sizes=sizes))
        check_goa(params, self.layout, sizes)
        return sizes

    def lowest(self, scores: Scored, sizes: Sizes) -> dict[tuple[int, str], torch.Tensor]:
        """Return the units of lowest score that go to come to the sizes, by block and group name."""
        return {
            key: one.double().argsort(stable=True)[:n_drop].sort().values
            for key, one in scores.items()
            if (n_drop := self._n_drop(key[1], sizes))
        }

    def _n_drop(self, name: str, sizes: Sizes) -> int:
        kind: InnerKind = "kv_groups" if name == "kv_groups" else "neurons"
        return self.layout.sizes.of(kind) - sizes.of(kind)
