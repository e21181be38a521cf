"""Recovery: what training may change, what it never makes worse, that it helps, and that a kill changes nothing."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from pruning_core.datasets.data_used import DataUsed
from pruning_core.errors import (
    DatasetTooSmall,
    DiskFull,
    ModelInvalid,
    NumericalFailure,
    OutputDoesNotLoad,
    ResumeMismatch,
)
from pruning_core.evaluate import verify
from pruning_core.pipeline import saving
from pruning_core.pipeline.costs import check_space
from pruning_core.pipeline.run import Provenance, Run, prepare
from pruning_core.recover import child, held_out
from pruning_core.recover.held_out import split
from pruning_core.recover.job import (
    FOLDER,
    PROBE,
    REPORT,
    STATE,
    TOKENS,
    TrainingJob,
    TrainingTokens,
)
from pruning_core.recover.loop import Training
from pruning_core.recover.loss import divergence
from pruning_core.recover.parent import finetune
from pruning_core.recover.stored_weights import StoredWeights
from pruning_core.recover.trainable_model import TrainableModel
from pruning_core.selection.masks import Selector
from pruning_core.spec.patterns import Row
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import Recovery, RecoveryReport
from pruning_core.spec.report import Origin
from pruning_core.system import files, subprocesses
from pruning_core.system.progress import Silent, Tracker
from pruning_core.system.subprocesses import ProgressCallback
from tests import tiny

CPU = torch.device("cpu")
SEQ = 16
METHODS: tuple[dict[str, Any], ...] = (
    {"method": "full", "learning_rate": 5e-3},
    {"method": "lora", "learning_rate": 2e-2, "rank": 4},
)
methods = pytest.mark.parametrize("method", METHODS, ids=lambda fields: str(fields["method"]))


class Killed(Exception):
    """The process is gone."""


def counting(windows: int, seq: int = SEQ, *, seed: int = 0) -> torch.Tensor:
    """Return windows of consecutive ids, int64 [windows, seq]: easy to learn."""
    start = torch.randint(3, 200, (windows, 1), generator=torch.Generator().manual_seed(seed))
    return (start + torch.arange(seq)) % (tiny.VOCAB - 3) + 3


def prunable(name: str) -> bool:
    inside = (".layers." in name or ".h." in name) and "norm" not in name and "ln_" not in name
    return inside and not name.endswith("bias")


def pruned(
    folder: Path,
    model_type: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> tuple[Path, list[str]]:
    """Save a tiny model with half of every block's matrices zero; return its folder and those tensors' names."""
    tiny.save(folder, model_type, dtype=dtype, **changes)
    tensors = load_file(folder / "model.safetensors")
    masked = [name for name, tensor in tensors.items() if tensor.ndim == 2 and prunable(name)]
    for name in masked:
        tensors[name] *= Selector(0.5, Row()).keep_mask(tensors[name].float().abs())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder, masked


class Rig:
    """One training in this process."""

    def __init__(
        self,
        folder: Path,
        masked: list[str],
        path: Path,
        *,
        tokens: torch.Tensor | None = None,
        validation: torch.Tensor | None = None,
        teacher: Any = None,
        pause: float = 1e9,
        saving_ratio: float = 0.0,
        on_progress: ProgressCallback = lambda _done, _total, _unit, _share: None,
        **fields: Any,
    ) -> None:
        wanted: dict[str, Any] = {"learning_rate": 5e-3, "patience": None, "batch": 8} | fields
        params = Recovery(**wanted)
        self.model = child.load(folder, torch.float32, CPU)
        self.stored = StoredWeights(self.model, folder)
        self.student = TrainableModel(
            self.model,
            params,
            masked=self.stored.masked(masked),
            stored=self.stored.dtypes(),
            blocks=self.stored.family.blocks,
        )
        self.training = Training(
            self.student,
            teacher,
            counting(64) if tokens is None else tokens,
            counting(16, seed=77) if validation is None else validation,
            params,
            device=CPU,
            path=path,
            fingerprint="one",
            on_progress=on_progress,
            pause=pause,
            saving_ratio=saving_ratio,
        )

    def run(self) -> RecoveryReport:
        return self.training.run()

    def write(self, target: Path) -> dict[str, torch.Tensor]:
        """Write the best weights and return what the files hold."""
        best = self.training.best
        assert best is not None
        self.student.settle(best)
        self.stored.write(best, target)
        return stored(target)


def stored(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        found |= load_file(path)
    return found


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def loss_of(folder: Path, windows: torch.Tensor) -> float:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return float(model(windows, labels=windows).loss)


@methods
def test_zeros_survive_100_steps_and_the_loss_falls(method: dict[str, Any], tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    rig = Rig(folder, masked, tmp_path / "s", **method, steps=100, weight_decay=0.1)
    report = rig.run()
    before, after = stored(folder), rig.write(tmp_path / "out")
    assert report.steps == 100
    assert report.loss_after < 0.75 * report.loss_before
    assert loss_of(tmp_path / "out", counting(16, seed=77)) == pytest.approx(
        report.loss_after, rel=1e-4
    )  # stock transformers computes the same mean in another order
    assert masked
    for name in masked:
        assert torch.equal(before[name] == 0, after[name] == 0), name
        assert not torch.equal(before[name], after[name])


def test_what_was_removed_has_no_gradient_and_no_weight(tmp_path: Path) -> None:
    """Either alone would keep the zeros of AdamW; without the first the gradient's norm counts what is gone."""
    folder, masked = pruned(tmp_path / "m", "mixtral")
    student = Rig(folder, masked, tmp_path / "s").student
    zeros = {name: weight == 0 for name, weight in student.weights().items()}
    for parameter in student.trained.values():
        parameter.grad = torch.ones_like(parameter)
        parameter.data += 1
    student.mask_gradients()
    student.mask_weights()
    assert sum(int(zero.sum()) for zero in zeros.values()) > 10_000
    for name, parameter in student.trained.items():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad == 0, zeros[name])
        assert not parameter.data[zeros[name]].any()


def test_without_masks_zeros_are_weights_like_others(tmp_path: Path) -> None:
    """Otherwise the tests of masks show nothing."""
    folder, masked = pruned(tmp_path / "m")
    for method in METHODS:
        rig = Rig(folder, [], tmp_path / "s", **method, steps=5)
        rig.run()
        after = rig.write(tmp_path / "out")
        assert all(int((after[name] == 0).sum()) < after[name].numel() / 10 for name in masked)


def test_low_rank_leaves_everything_outside_the_blocks_alone(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    rig = Rig(folder, masked, tmp_path / "s", **METHODS[1], steps=10)
    rig.run()
    before, after = stored(folder), rig.write(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(masked)
    free = Rig(folder, [], tmp_path / "f", **METHODS[1], steps=10)
    free.run()
    unbound = free.write(tmp_path / "free")
    for name in masked:  # the mask makes more of it
        assert int(torch.linalg.matrix_rank(unbound[name] - before[name], rtol=1e-3)) <= 4, name
        assert int(torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3)) > 4, name


@pytest.mark.parametrize("model_type", ["gemma3_text", "gpt2", "opt", "mixtral", "phi3", "qwen2"])
@methods
def test_every_layout_of_files_is_written_as_it_was(
    method: dict[str, Any], model_type: str, tmp_path: Path
) -> None:
    folder, masked = pruned(tmp_path / "m", model_type, dtype=torch.bfloat16)
    rig = Rig(folder, masked, tmp_path / "s", **method, steps=4)
    report = rig.run()
    before, after = stored(folder), rig.write(tmp_path / "out")
    assert shapes(before) == shapes(after)
    assert masked
    for name in masked:
        assert torch.equal(before[name] == 0, after[name] == 0), name
        assert not torch.equal(before[name], after[name]), name
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    again = Rig(tmp_path / "out", masked, tmp_path / "t", steps=1).run()
    assert (
        again.loss_before == report.loss_after
    )  # validation saw the weights as bfloat16 holds them
    assert loss_of(tmp_path / "out", counting(16, seed=77)) == pytest.approx(
        report.loss_after, rel=1e-3
    )  # stock transformers sums experts in another order


def test_a_checkpoint_of_the_base_model_keeps_its_names(tmp_path: Path) -> None:
    """GPT-2 on the hub has `h.0...` for `transformer.h.0...`, and buffers that are no parameters."""
    folder, _ = pruned(tmp_path / "m", "gpt2")
    tensors = {name.removeprefix("transformer."): one for name, one in stored(folder).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 256, 256).tril()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    masked = [name for name in tensors if name.endswith("c_fc.weight")]
    rig = Rig(folder, masked, tmp_path / "s", steps=4)
    rig.run()
    after = rig.write(tmp_path / "out")
    assert shapes(after) == shapes(tensors)
    assert torch.equal(after["h.0.attn.bias"], tensors["h.0.attn.bias"])
    assert all(not torch.equal(after[name], tensors[name]) for name in masked)
    assert all(torch.equal(after[name] == 0, tensors[name] == 0) for name in masked)


def test_shards_stay_as_they_were(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    rig = Rig(folder, masked, tmp_path / "one", steps=2)
    rig.run()
    model = child.load(folder, torch.float32, CPU)
    shutil.copytree(folder, tmp_path / "shards", ignore=shutil.ignore_patterns("*.safetensors"))
    model.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").is_file()
    sharded = Rig(tmp_path / "shards", masked, tmp_path / "two", steps=2)
    sharded.run()
    after = sharded.write(tmp_path / "sharded")
    assert equal(after, rig.write(tmp_path / "single"))
    for path in (tmp_path / "shards").glob("model*.safetensors"):
        assert shapes(load_file(path)) == shapes(load_file(tmp_path / "sharded" / path.name))


@pytest.mark.parametrize("both", [False, True])
def test_tied_embeddings_stay_tied(both: bool, tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m", tie_word_embeddings=True)
    tensors = stored(folder)
    if both:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    rig = Rig(folder, masked, tmp_path / "s", steps=4)
    rig.run()
    after = rig.write(tmp_path / "out")
    assert shapes(after) == shapes(tensors)
    embedding = after["model.embed_tokens.weight"]
    assert not torch.equal(embedding, tensors["model.embed_tokens.weight"])
    if both:
        assert torch.equal(embedding, after["lm_head.weight"])
    model = child.load(tmp_path / "out", torch.float32, CPU)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A pruned model that can count."""
    root = tmp_path_factory.mktemp("learnt")
    folder, masked = pruned(root / "m")
    rig = Rig(folder, masked, root / "s", steps=60, learning_rate=1e-2)
    assert rig.run().loss_after < 2
    rig.write(root / "out")
    return root / "out", masked


@methods
def test_where_nothing_is_better_the_start_is_kept(
    method: dict[str, Any], learnt: tuple[Path, list[str]], tmp_path: Path
) -> None:
    rig = Rig(*learnt, tmp_path / "s", **method | {"learning_rate": 1.0}, steps=6)
    report = rig.run()
    assert report.best_step == 0
    assert report.loss_after == report.loss_before
    assert rig.training.best is None


def test_what_is_kept_is_the_best_of_all_validations(tmp_path: Path) -> None:
    """Few windows for many steps: at last it knows them by heart and the others worse than before."""
    folder, masked = pruned(tmp_path / "m")
    fields: dict[str, Any] = {"tokens": tiny.tokens(8, SEQ), "epochs": 40, "evaluate_every": 2}
    rig = Rig(folder, masked, tmp_path / "s", **fields)
    report = rig.run()
    losses = [point.validation_loss for point in report.history]
    assert report.loss_after == min(report.loss_before, *losses) < losses[-1]
    training = [point.training_loss for point in report.history]
    assert training[-1] < 0.8 * training[0]
    assert 0 < report.best_step < 30

    def die(_done: int, _total: int, _unit: str, share: float | None) -> None:
        if share is not None and share > 0.9:
            raise Killed

    with pytest.raises(Killed):
        Rig(folder, masked, tmp_path / "k", **fields, on_progress=die, pause=0).run()
    resumed = Rig(folder, masked, tmp_path / "k", **fields)
    assert resumed.run().best_step == report.best_step
    assert rig.training.best is not None
    assert resumed.training.best is not None
    assert equal(resumed.training.best, rig.training.best)


def test_patience_ends_it(learnt: tuple[Path, list[str]], tmp_path: Path) -> None:
    params: dict[str, Any] = {"learning_rate": 1.0, "epochs": 50, "evaluate_every": 0.25}
    report = Rig(*learnt, tmp_path / "s", patience=3, **params).run()
    assert report.stopped == "patience"
    assert report.steps == 6  # 8 steps are an epoch, every second is validated
    assert [point.step for point in report.history] == [2, 4, 6]


@pytest.mark.parametrize(
    ("fields", "steps", "stopped"),
    [
        ({}, 8, "budget"),
        ({"epochs": 2}, 16, "budget"),
        ({"epochs": 0.5}, 4, "budget"),
        ({"steps": 3}, 3, "budget"),
        ({"epochs": 1, "steps": 30}, 8, "budget"),
        ({"batch": 5, "accumulation": 2}, 7, "budget"),
        ({"batch": 1000}, 1, "budget"),
        ({"minutes": 1e-6}, 1, "time"),
        ({"minutes": 1e-6, "epochs": 9}, 1, "time"),
        ({"minutes": 60, "steps": 2}, 2, "budget"),
    ],
)
def test_the_first_bound_ends_it(
    fields: dict[str, Any], steps: int, stopped: str, tmp_path: Path
) -> None:
    folder, masked = pruned(tmp_path / "m")
    report = Rig(folder, masked, tmp_path / "s", **fields).run()
    assert (report.steps, report.stopped) == (steps, stopped)
    assert report.history[-1].step == steps
    assert (report.windows, report.tokens, report.validation_windows) == (64, 64 * SEQ, 16)


def test_every_window_is_used_once_per_epoch(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    folder, masked = pruned(tmp_path / "m")
    tokens = counting(20)
    rig = Rig(folder, masked, tmp_path / "s", tokens=tokens, batch=3, accumulation=2, epochs=2)
    rig.model.register_forward_pre_hook(
        lambda module, _, kwargs: seen.append(kwargs["input_ids"]) if module.training else None,
        with_kwargs=True,
    )
    rig.run()
    rows = torch.cat(seen)
    assert len(rows) == 40
    for epoch in (rows[:20], rows[20:]):
        assert sorted(epoch.tolist()) == sorted(tokens.tolist())
        assert not torch.equal(epoch, tokens)
    assert not torch.equal(rows[:20], rows[20:])


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    rigs = [
        Rig(folder, masked, tmp_path / "s", tokens=counting(50), batch=batch, accumulation=passes, steps=12)
        for batch, passes in ((12, 1), (4, 3), (5, 3))
    ]  # fmt: skip
    whole, parts, other = (rig.run() for rig in rigs)
    assert parts.loss_after == pytest.approx(whole.loss_after, rel=1e-4)
    for one, two in zip(whole.history, parts.history, strict=True):
        assert two.training_loss == pytest.approx(one.training_loss, rel=1e-4)
    assert other.loss_after != pytest.approx(whole.loss_after, rel=1e-4)
    whole_weights, part_weights = (rig.student.weights() for rig in rigs[:2])
    for name, weight in whole_weights.items():
        # sums in another order, which AdamW's division by small second moments enlarges
        assert torch.allclose(weight, part_weights[name], atol=1e-3), name


@methods
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_resumed_equals_uninterrupted_bit_by_bit(
    method: dict[str, Any], model_type: str, tmp_path: Path
) -> None:
    """GPT-2 has dropout; an epoch has 8 steps, so that the second is cut within."""
    fields: dict[str, Any] = method | {"epochs": 3, "weight_decay": 0.01}
    folder, masked = pruned(tmp_path / "m", model_type, dtype=torch.bfloat16)
    straight = Rig(folder, masked, tmp_path / "a", **fields)
    expected = straight.run()
    for limit in (0.2, 0.5, 0.8):

        def die(
            _done: int, _total: int, _unit: str, share: float | None, limit: float = limit
        ) -> None:
            if share is not None and share > limit:
                raise Killed

        with pytest.raises(Killed):
            Rig(folder, masked, tmp_path / "b", on_progress=die, pause=0, **fields).run()
    resumed = Rig(folder, masked, tmp_path / "b", **fields)
    assert resumed.training._state.step == 19
    found = resumed.run()
    timeless = {"seconds": 0.0}
    assert found.model_copy(update=timeless) == expected.model_copy(update=timeless)
    assert equal(resumed.student.weights(), straight.student.weights())
    assert equal(resumed.training.best or {}, straight.training.best or {})


def test_checkpoints_that_cost_much_are_written_seldom(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    Rig(folder, masked, tmp_path / "s", pause=0, saving_ratio=1e9, steps=5).run()
    assert Rig(folder, masked, tmp_path / "s", steps=5).training._state.step == 1


def test_what_another_training_left_is_refused(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    Rig(folder, masked, tmp_path / "s", pause=0, steps=3).run()
    state = tmp_path / "s"
    tensors = load_file(state)
    save_file(
        tensors, state, metadata={"state": '{"fingerprint": "two", "before": 1, "lowest": 1}'}
    )
    with pytest.raises(ResumeMismatch, match="another run"):
        Rig(folder, masked, state, steps=3)


def test_distillation_brings_the_predictions_to_the_teacher(tmp_path: Path) -> None:
    dense = tiny.save(tmp_path / "dense", "llama")
    folder, masked = pruned(tmp_path / "m")
    teacher = child.load(dense, torch.float32, CPU)
    windows = tiny.tokens(16, SEQ, seed=9)

    def distance(model: Any) -> float:
        with torch.no_grad():
            ours, theirs = (one(windows).logits.flatten(0, 1) for one in (model, teacher))
        return float(divergence(ours, theirs, 1.0))

    before = distance(child.load(folder, torch.float32, CPU))
    rig = Rig(
        folder, masked, tmp_path / "s", tokens=tiny.tokens(64, SEQ), validation=windows, teacher=teacher,
        distillation=1.0, temperature=1.0, steps=60,
    )  # fmt: skip
    report = rig.run()
    assert report.distilled
    assert report.loss_before == pytest.approx(before, rel=0.1)  # that leaves the last position out
    rig.write(tmp_path / "out")
    assert distance(child.load(tmp_path / "out", torch.float32, CPU)) < 0.7 * before
    plain = Rig(
        folder, masked, tmp_path / "p", tokens=tiny.tokens(64, SEQ), validation=windows, steps=1
    )
    mixed = Rig(
        folder, masked, tmp_path / "q", validation=windows, teacher=teacher, distillation=0.25, steps=1,
        temperature=1.0,
    )  # fmt: skip
    expected = 0.75 * plain.run().loss_before + 0.25 * report.loss_before
    assert mixed.run().loss_before == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_that_of_the_textbook() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    p, q = (theirs / 2).softmax(-1), (ours / 2).softmax(-1)
    expected = 4 * (p * (p / q).log()).sum(-1).mean()
    assert float(divergence(ours, theirs, 2.0)) == pytest.approx(float(expected), rel=1e-12)
    assert float(divergence(ours, ours, 3.0)) == 0


@methods
def test_bf16_products_train_too(method: dict[str, Any], tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m", "mixtral")
    rig = Rig(folder, masked, tmp_path / "s", **method, steps=30, precision="bf16")
    report = rig.run()
    assert report.precision == "bf16"
    assert report.loss_after < 0.9 * report.loss_before
    assert {parameter.dtype for parameter in rig.student.trained.values()} == {torch.float32}


def test_small_steps_of_a_16_bit_checkpoint_add_up(tmp_path: Path) -> None:
    """Rounded after every step, a rate of 1e-5 would change nothing."""
    folder, masked = pruned(tmp_path / "m", dtype=torch.bfloat16)
    report = Rig(folder, masked, tmp_path / "s", learning_rate=1e-5, epochs=10, warmup=0).run()
    assert report.loss_after < report.loss_before


def test_a_loss_that_is_no_number_names_the_fix(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    rig = Rig(folder, masked, tmp_path / "s")
    rig.student.trained["model.norm.weight"].data[0] = math.nan
    with pytest.raises(NumericalFailure, match=r"lower recovery\.learning_rate than 0\.005"):
        rig.run()


def test_split_is_disjoint_and_complete_without_duplicates() -> None:
    windows = torch.cat([counting(60), counting(60), counting(40, seed=3)])
    distinct = {tuple(row) for row in windows.tolist()}
    training, validation = split(windows, Recovery())
    left, right = ({tuple(row) for row in part.tolist()} for part in (training, validation))
    assert left | right == distinct
    assert not left & right
    assert (len(left), len(right)) == (len(training), len(validation))
    assert len(validation) == round(0.1 * len(distinct))
    order = [windows.tolist().index(row) for row in training.tolist()]
    assert order == sorted(order)


def test_split_depends_on_content_and_seed_alone() -> None:
    windows = counting(60)
    chosen = [
        {tuple(row) for row in split(some, Recovery(validation=0.2, seed=seed))[1].tolist()}
        for some, seed in ((windows, 1), (windows.flip(0), 1), (windows, 2))
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_split_needs_two_distinct_windows() -> None:
    training, validation = split(counting(2), Recovery(validation=0.5))
    assert len(training) == len(validation) == 1
    with pytest.raises(DatasetTooSmall, match="two distinct"):
        split(counting(1).repeat(5, 1), Recovery())


@pytest.mark.parametrize(
    ("fields", "validating"),
    [
        ({}, 100),  # a tenth of an epoch's windows
        ({"epochs": 3}, 100),  # further epochs see no further windows
        ({"steps": 50}, 40),  # a tenth of 400 windows
        ({"steps": 50, "accumulation": 2}, 80),
        ({"steps": 10, "batch": 1}, 16),  # 4,096 tokens, whatever the budget
        ({"epochs": 0.02}, 16),
        ({"steps": 50, "validation": 0.5}, 200),
        ({"steps": 1, "validation": 0.002}, 2),  # less was asked for
    ],
)
def test_validation_is_bounded_by_what_the_budget_trains_on(
    fields: dict[str, Any], validating: int
) -> None:
    training, validation = split(tiny.tokens(1000, 256), Recovery(**fields))
    assert (len(training), len(validation)) == (1000 - validating, validating)


def test_validation_is_bounded_by_the_minutes(
    learnt: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """512 windows would take far longer than a tenth of a hundredth of a second."""
    held = counting(512, seed=77)
    many = Rig(*learnt, tmp_path / "a", validation=held, minutes=1e-4, epochs=1).run()
    assert many.validation_windows == held_out.least(held) < 512
    assert many.validation_tokens == many.validation_windows * SEQ
    assert many.validations == 2
    few = Rig(*learnt, tmp_path / "b", validation=held, minutes=60, steps=1).run()
    assert few.validation_windows == 512


def test_report_counts_the_tokens_that_were_seen(
    learnt: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """An epoch of 20 windows has steps of 8, 8 and 4."""
    tokens = counting(20)
    for steps, windows in ((1, 8), (3, 20), (4, 28)):
        report = Rig(*learnt, tmp_path / str(steps), tokens=tokens, steps=steps).run()
        assert report.trained_tokens == windows * SEQ


def test_progress_counts_steps_and_validation_windows(
    learnt: tuple[Path, list[str]], tmp_path: Path
) -> None:
    told: list[tuple[int, int, str, float | None]] = []
    rig = Rig(*learnt, tmp_path / "s", epochs=1, on_progress=lambda *words: told.append(words))
    rig.run()
    steps = [(done, total) for done, total, unit, _ in told if unit == "step"]
    assert steps == [(number, 8) for number in range(1, 9)]
    windows = [(done, total) for done, total, unit, _ in told if unit == "validation window"]
    assert windows == [(8, 16), (16, 16)] * 5  # before the first step, then four times
    shares = [share or 0.0 for *_, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    "fields",
    [
        {"rank": 4},
        {"method": "full", "alpha": 8},
        {"temperature": 2},
        {"tasks": ["law", "law"]},
        {"tasks": []},
        {"validation": 0},
        {"distillation": 1.5},
        {"learning_rate": 0},
        {"method": "dora"},
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Recovery.model_validate(fields)


def test_defaults_follow_the_method_and_survive_json() -> None:
    full, lora = Recovery(), Recovery(method="lora", rank=8)
    assert (full.rate, lora.rate) == (5e-5, 1e-4)
    assert (lora.lora_rank, lora.lora_scale) == (8, 2.0)
    assert Recovery(method="lora", alpha=8).lora_scale == 0.5
    assert (full.most_steps(7), Recovery(minutes=1).most_steps(7)) == (7, None)
    for params in (full, lora):
        assert Recovery.model_validate_json(params.model_dump_json()) == params


def test_whoever_asked_may_stop_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocesses, "LOOK_SECONDS", 0.2)

    def stop() -> None:
        raise Killed

    with pytest.raises(Killed):
        subprocesses.run("http.server", "0", "--bind", "127.0.0.1", alive=stop)


def job(folder: Path, masked: list[str], work: Path, **fields: Any) -> dict[str, Any]:
    wanted: dict[str, Any] = {"learning_rate": 5e-3, "steps": 20} | fields
    return {
        "checkpoint": folder,
        "dense": folder,
        "work": work,
        "params": Recovery(**wanted),
        "masked": masked,
        "fingerprint": "one",
    }


def call(given: dict[str, Any], told: list[tuple[int, int, str, float | None]]) -> RecoveryReport:
    return finetune(
        TrainingJob(**given, device="cpu"),
        TrainingTokens(counting(64), counting(16, seed=77), verify.probe_tokens(tiny.VOCAB, 256)),
        on_progress=lambda *words: told.append(words),
        alive=lambda: None,
    )


def test_a_process_of_its_own_trains_once(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m", dtype=torch.bfloat16)
    (folder / "channel_order.safetensors").write_bytes(b"as it is")
    told: list[tuple[int, int, str, float | None]] = []
    given = job(folder, masked, tmp_path / "work", precision="fp32")
    report = call(given, told)
    out = tmp_path / "work" / FOLDER
    assert report.loss_after < report.loss_before
    assert told[-1] == (report.steps, report.steps, "step", 1.0)
    assert (out / "channel_order.safetensors").read_bytes() == b"as it is"
    assert shapes(stored(out)) == shapes(stored(folder))
    assert all(torch.equal(stored(out)[n] == 0, stored(folder)[n] == 0) for n in masked)
    (out / "channel_order.safetensors").unlink()
    probe = load_file(tmp_path / "work" / PROBE)
    examined = verify.check(
        out, tmp_path / "expected", probe["tokens"], probe["logits"], device=CPU
    )
    assert examined.verification.max_logit_difference <= 1e-4
    digests = {path: files.sha256(path) for path in out.iterdir()}
    assert call(given, told) == report  # at once
    assert digests == {path: files.sha256(path) for path in out.iterdir()}
    with pytest.raises(ResumeMismatch, match="another run"):
        call(given | {"fingerprint": "two"}, told)


def test_a_failure_of_the_process_is_told_by_its_class(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    tensors = stored(folder)
    tensors["model.norm.weight"] *= math.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericalFailure, match="learning_rate"):
        call(job(folder, masked, tmp_path / "work"), [])
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises((OutputDoesNotLoad, ModelInvalid)):
        call(job(folder, masked, tmp_path / "other"), [])


def recovered(given: dict[str, Any]) -> RecoveryReport:
    """Do in this process what `finetune` does in another."""
    work = given["work"]
    work.mkdir()
    TrainingTokens(counting(64), counting(16, seed=77), counting(1)).save(work / TOKENS)
    child.train(TrainingJob(**given, device="cpu"))
    return RecoveryReport.model_validate_json((work / REPORT).read_bytes())


def test_what_an_earlier_attempt_shares_is_not_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The next attempt takes the file over by a hard link."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "earlier").write_bytes(b"as it is")
    os.link(tmp_path / "earlier", work / TOKENS)

    def fail(*_: Any, **__: Any) -> str:
        raise Killed

    monkeypatch.setattr(subprocesses, "run", fail)
    with pytest.raises(Killed):
        call(job(tmp_path, [], work), [])
    assert (tmp_path / "earlier").read_bytes() == b"as it is"
    assert load_file(work / TOKENS).keys() == {"tokens", "validation", "probe"}


def prepared(tmp_path: Path, **recovery: Any) -> Run:
    """Return a run of magnitude with recovery, ready to begin."""
    line = json.dumps({"text": "words and words " * 20})
    for half in ("calibration", "eval"):
        (tmp_path / "tasks" / "texts").mkdir(parents=True, exist_ok=True)
        (tmp_path / "tasks" / "texts" / f"{half}.jsonl").write_text(line)
    spec = PruneSpec.model_validate(
        {
            "method": "magnitude",
            "sparsity": 0.5,
            "calibration": ["texts"],
            "evaluation": {"tasks": []},
            "recovery": {"seq_len": 16, **recovery},
        }
    )
    folder, out = tiny.save(tmp_path / "dense", "llama"), tmp_path / "out"
    tracker, data_used = Tracker(Silent()), DataUsed(tmp_path / "tasks")
    return prepare(folder, spec, out, None, tracker, data_used, Provenance(Origin(model="m")))


def test_what_was_trained_outlives_the_checkpoint_made_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A run that ends while it evaluates must not train again."""
    run = prepared(tmp_path)
    trained = run.work / "recovery" / FOLDER
    (trained / "sub").mkdir(parents=True)
    (trained / "sub" / "weights").write_bytes(b"new")
    run.checkpoint.mkdir()
    (run.checkpoint / "weights").write_bytes(b"of an earlier run")
    saving.publish(run, trained)
    assert [path.name for path in run.checkpoint.iterdir()] == ["sub"]
    assert (run.checkpoint / "sub" / "weights").samefile(trained / "sub" / "weights")

    def fail(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", fail)
    saving.publish(run, trained)
    assert (run.checkpoint / "sub" / "weights").read_bytes() == b"new"
    assert (trained / "sub" / "weights").read_bytes() == b"new"


@pytest.mark.parametrize(("method", "per_parameter"), [("full", 12), ("lora", 1)])
def test_room_for_training_is_asked_for_before_any_work(
    method: str, per_parameter: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = prepared(tmp_path, method=method)
    training = 3 * run.facts.bytes + 2 * per_parameter * run.facts.parameters
    usage = shutil.disk_usage(tmp_path)
    needed = int(2.1 * run.facts.bytes) + training
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed - 1))
    with pytest.raises(DiskFull, match=f"{needed} bytes"):
        check_space(run)
    work = run.work / "recovery"
    work.mkdir(parents=True)
    (work / STATE).write_bytes(b"1")
    check_space(run)
    (work / STATE).unlink()
    (work / REPORT).write_text("{}")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed - training))
    check_space(run)


RENUMBERING: dict[str, Any] = {
    "method": {"name": "contextual", "parts": ["embedding"]},
    "calibration": ["self", "texts"],
}


@pytest.mark.parametrize(
    ("recovery", "changes", "message"),
    [
        ({}, {}, "`self`.* does not train"),
        ({"tasks": ["texts", "self"]}, {}, "`self`.* does not train"),
        ({"tasks": ["texts"], "distillation": 0.5}, {}, "distillation"),
        ({"tasks": ["texts"]}, {}, None),
        ({"distillation": 0.5}, {"pattern": {"name": "units", "mode": "zero"}}, None),
        ({"distillation": 0.5}, {"method": "contextual", "sparsity": 0.2}, None),
        ({"distillation": 0.5}, {"method": "wanda", "sparsity": 0.5}, None),
    ],
)
def test_what_fewer_tokens_cannot_train_is_refused_at_once(
    recovery: dict[str, Any], changes: dict[str, Any], message: str | None
) -> None:
    given = RENUMBERING | changes | {"recovery": recovery}
    if message is None:
        PruneSpec.model_validate(given)
        return
    with pytest.raises(ValidationError, match=message):
        PruneSpec.model_validate(given)


def test_a_start_that_is_kept_is_copied_bit_by_bit(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    report = recovered(job(folder, masked, tmp_path / "work", learning_rate=1.0, steps=3))
    assert report.best_step == 0
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "work" / FOLDER / path.name).read_bytes()
    logits = load_file(tmp_path / "work" / PROBE)["logits"]
    with torch.no_grad():
        assert torch.equal(logits, child.load(folder, torch.float32, CPU)(counting(1)).logits)


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    folder, masked = pruned(tmp_path / "m")
    dense = tiny.save(tmp_path / "dense", "llama", vocab_size=320)
    given = job(folder, masked, tmp_path / "work", distillation=0.5) | {"dense": dense}
    with pytest.raises(ModelInvalid, match=r"leave recovery\.distillation off"):
        recovered(given)
