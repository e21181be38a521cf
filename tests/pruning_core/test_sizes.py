"""The sizes that a model can be cut to: stock transformers takes every one of them, and jobs get the nearest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from pruning_core.admission.unit_checks import check_units
from pruning_core.checkpoints import facts as checkpoint
from pruning_core.checkpoints.facts import CheckpointFacts, inspect
from pruning_core.checkpoints.headers import TensorFacts
from pruning_core.checkpoints.weight_files import Stored
from pruning_core.errors import ModelInvalid, PruningError, SizeUnreachable, UnitsUnsupported
from pruning_core.families import FAMILIES, family_of
from pruning_core.spec.patterns import Units
from pruning_core.spec.prune import Budget, PruneSpec
from pruning_core.spec.unit_method import UNIT_NAMES, UnitKind
from pruning_core.structure.cutter import Cutter
from pruning_core.structure.layout import Layout, layout_of
from pruning_core.structure.spans import Sizes
from pruning_core.structure.target import Target
from tests import tiny

MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)
PICKY = sorted(name for family in FAMILIES for name in family.heads_divide_width)
NEURONS = {"gpt2": "n_inner", "opt": "ffn_dim", "qwen3_moe": "moe_intermediate_size"}
WIDE: dict[str, Any] = {"hidden_size": 96, "num_attention_heads": 12, "num_key_value_heads": 6}
"""Key-value groups of two query heads; 10 query heads do not divide the width."""
SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
PARAMETERS = 134_515_008
"""Of SmolLM2-135M."""


def facts_of(folder: Path, model_type: str, **changes: Any) -> CheckpointFacts:
    return inspect(tiny.save(folder / "m", model_type, **changes))


def cutter(layout: Layout, multiple_of: int = 8, mode: str = "remove") -> Cutter:
    return Cutter(layout, Units.model_validate({"multiple_of": multiple_of, "mode": mode}))


@pytest.fixture(scope="module")
def smollm2() -> Layout:
    return from_shapes("llama", SMOLLM2)


def from_shapes(model_type: str, sizes: dict[str, Any]) -> Layout:
    """Return the units of a model whose weights are on no device."""
    config = CONFIG_MAPPING[model_type](**sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tensors = {
        name: TensorFacts("BF16", tuple(one.shape), 0) for name, one in model.named_parameters()
    }
    return Layout(family_of(model_type), config.to_dict(), tensors)


def wide(model_type: str) -> dict[str, Any]:
    if "kv_groups" in family_of(model_type).fixed:
        return {}
    return WIDE | {"head_dim": 8}


def fields(model_type: str, kind: UnitKind, size: int) -> dict[str, Any]:
    """Return the entries of the configuration of a model with so many units of one kind."""
    if kind == "kv_groups":
        return {"num_attention_heads": 2 * size, "num_key_value_heads": size}
    if kind == "neurons":
        return {NEURONS.get(model_type, "intermediate_size"): size}
    return {family_of(model_type).width_keys[kind]: size}


def forward(model_type: str, **changes: Any) -> None:
    model = AutoModelForCausalLM.from_config(tiny.config(model_type, **changes)).eval()
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_stock_transformers_runs_every_legal_size(model_type: str, tmp_path: Path) -> None:
    whole = wide(model_type)
    cuts = cutter(layout_of(facts_of(tmp_path, model_type, **whole)))
    kinds: tuple[UnitKind, ...] = ("hidden", "neurons", "kv_groups")
    legal = {kind: cuts.legal(kind) for kind in kinds if kind not in cuts.layout.family.fixed}
    assert all(legal.values())
    for kind, sizes in legal.items():
        for size in sizes:
            forward(model_type, **whole | fields(model_type, kind, size))


@pytest.mark.parametrize("model_type", PICKY)
@pytest.mark.parametrize(("kind", "size"), [("kv_groups", 5), ("hidden", 88)])
def test_stock_transformers_refuses_what_the_heads_do_not_divide(
    model_type: str, kind: UnitKind, size: int, tmp_path: Path
) -> None:
    whole = wide(model_type)
    cuts = cutter(layout_of(facts_of(tmp_path, model_type, **whole)))
    assert size not in cuts.legal(kind)
    with pytest.raises(Exception, match=r"multiple|divisible|head"):
        forward(model_type, **whole | fields(model_type, kind, size))


def test_the_other_families_take_any_number_of_groups(tmp_path: Path) -> None:
    cuts = cutter(layout_of(facts_of(tmp_path, "mistral", **wide("mistral"))))
    assert tuple(cuts.legal("kv_groups")) == (1, 2, 3, 4, 5)
    assert tuple(cuts.legal("hidden")) == tuple(range(8, 96, 8))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_cannot_go_says_why_and_zeros_can_always_be_written(
    model_type: str, tmp_path: Path
) -> None:
    layout = layout_of(facts_of(tmp_path, model_type))
    for kind, reason in layout.family.fixed.items():
        assert cutter(layout).refusal(kind) == reason
        assert not cutter(layout).legal(kind)
        assert cutter(layout, mode="zero").refusal(kind) is None
    for kind in UNIT_NAMES:
        assert len(cutter(layout, mode="zero").legal(kind)) == layout.sizes.of(kind) - 1
        assert cutter(layout).rule(kind) != cutter(layout, mode="zero").rule(kind)


def test_sizes_of_a_real_model(smollm2: Layout) -> None:
    cuts = cutter(smollm2)
    assert smollm2.parameters(smollm2.sizes) == PARAMETERS
    assert smollm2.bytes(smollm2.sizes) == 2 * PARAMETERS
    assert tuple(cuts.legal("hidden")) == (72, 144, 216, 288, 360, 432, 504)  # 8 and 9 divide them
    assert tuple(cuts.legal("kv_groups")) == (1, 2)
    assert cuts.legal("neurons") == range(8, 1536, 8)
    assert not cutter(smollm2, 128).legal("hidden")
    assert "(9)" in cuts.rule("hidden")
    assert "llama" in cuts.rule("kv_groups")


@pytest.mark.parametrize(
    ("sparsity", "kinds", "expected"),
    [
        (0.2, ("hidden",), {"hidden": 432}),
        (0.3, ("neurons",), {"neurons": 760}),
        (0.1, ("kv_groups",), {"kv_groups": 1}),
        (0.2, ("layers",), {"layers": 22}),
        (0.2, ("kv_groups", "neurons"), {"kv_groups": 2, "neurons": 1184}),
        (0.05, ("kv_groups", "neurons"), {"kv_groups": 3, "neurons": 1408}),
    ],
)
def test_a_share_becomes_the_nearest_legal_sizes(
    sparsity: float, kinds: tuple[UnitKind, ...], expected: dict[str, int], smollm2: Layout
) -> None:
    solved = Target.of(cutter(smollm2), sparsity, None).solve(kinds)
    assert solved == replace(smollm2.sizes, **expected)


QWEN3: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
"""Of Qwen3-0.6B."""


@pytest.mark.parametrize("tokens", [151_936, 30_000])
def test_groups_and_neurons_lose_one_share_of_what_the_tokens_left(tokens: int) -> None:
    layout = from_shapes("qwen3", QWEN3)
    start = replace(layout.sizes, vocabulary=tokens)
    target = Target.of(cutter(layout), 0.6, None)
    solved = target.solve(("kv_groups", "neurons"), start)
    assert abs(target.weigh(solved) - target.size) <= 0.01 * target.weigh(start)
    assert solved.vocabulary == tokens
    if tokens == 30_000:
        assert solved.kv_groups == 4
        assert solved.neurons == pytest.approx(3072 * 3.8 / 8, rel=0.1)


@pytest.mark.parametrize(("sparsity", "groups"), [(0.15, 8), (0.4, 5), (0.37, 2)])
def test_groups_lie_as_near_to_the_common_share_as_coarse_neurons_allow(
    sparsity: float, groups: int
) -> None:
    """Several numbers of groups reach the target equally well: 4 and 8, 1 and 5, 2 and 6, of which 6.4, 3.7 and 4.0 are wanted."""
    layout = from_shapes("qwen3", QWEN3)
    target = Target.of(cutter(layout, 1024), sparsity, None)
    solved = target.solve(("kv_groups", "neurons"))
    assert solved.kv_groups == groups
    assert abs(target.weigh(solved) - target.size) <= 0.01 * target.weigh(layout.sizes)


def test_a_budget_counts_parameters_or_bytes(smollm2: Layout) -> None:
    cuts = cutter(smollm2)
    by_parameters = Target.of(cuts, None, Budget(parameters=100_000_000)).solve(("neurons",))
    by_bytes = Target.of(cuts, None, Budget(bytes=200_000_000)).solve(("neurons",))
    assert by_parameters == by_bytes
    assert abs(smollm2.parameters(by_parameters) - 100_000_000) <= 4 * 3 * 576 * 30  # half a step


def test_of_two_equally_near_sizes_the_larger_is_kept(smollm2: Layout) -> None:
    weights = [smollm2.parameters(replace(smollm2.sizes, hidden=size)) for size in (432, 504)]
    halfway = sum(weights) // 2
    assert 2 * halfway == sum(weights)
    assert Target(cutter(smollm2), halfway).solve(("hidden",)).hidden == 504
    assert Target(cutter(smollm2), halfway - 1).solve(("hidden",)).hidden == 432


@pytest.mark.parametrize("kind", ["hidden", "neurons", "kv_groups", "layers", "vocabulary"])
def test_the_search_finds_what_trying_every_size_finds(kind: UnitKind, tmp_path: Path) -> None:
    layout = layout_of(facts_of(tmp_path, "qwen3", **wide("qwen3")))
    cuts = cutter(layout)
    options = [replace(layout.sizes, **{kind: size}) for size in reversed(cuts.legal(kind))]
    smallest, whole = (layout.parameters(one) for one in (options[-1], layout.sizes))
    first = layout.parameters(options[0])
    for size in range(smallest, (whole + first) // 2, 97):
        target = Target(cuts, size)
        expected = min(options, key=lambda one: abs(layout.parameters(one) - target.size))
        assert target.solve((kind,)) == expected


@pytest.mark.parametrize(
    ("sparsity", "budget", "kinds", "pointer", "why"),
    [
        (0.95, None, ("neurons",), "/prune/sparsity", "at most 58.9%"),
        (0.01, None, ("hidden",), "/prune/sparsity", "the smallest step removes 12.50%"),
        (None, {"parameters": 10**9}, ("hidden",), "/prune/budget/parameters", "nothing"),
        (None, {"bytes": 1}, ("layers",), "/prune/budget/bytes", "at most"),
        (1 - 2**-53, None, ("vocabulary",), "/prune/sparsity", "at most"),
    ],
)
def test_what_no_legal_size_comes_near_is_refused(
    sparsity: float | None,
    budget: dict[str, int] | None,
    kinds: tuple[UnitKind, ...],
    pointer: str,
    why: str,
    smollm2: Layout,
) -> None:
    wanted = None if budget is None else Budget.model_validate(budget)
    with pytest.raises(SizeUnreachable, match=why) as refused:
        Target.of(cutter(smollm2), sparsity, wanted).solve(kinds)
    assert refused.value.pointer == pointer
    assert "/v1/models/inspect" in refused.value.suggestions[0]


def refusal_of(layout: Layout, **fields: Any) -> PruningError | None:
    try:
        check_units(PruneSpec.model_validate({"sparsity": 0.2} | fields), layout)
    except PruningError as error:
        return error
    return None


def test_a_method_whose_units_cannot_go_is_refused(tmp_path: Path) -> None:
    error = refusal_of(layout_of(facts_of(tmp_path, "gpt2")), method="diet")
    assert isinstance(error, UnitsUnsupported)
    assert "LayerNorm" in error.message


LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
    "original_max_position_embeddings": 64,
}
SETTINGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "longrope, heads": (
        "phi3",
        {"rope_parameters": LONG},
        {"method": {"name": "wanda_sp", "units": ["kv_groups"]}, "sparsity": 0.1},
    ),
    "longrope, hidden": ("phi3", {"rope_parameters": LONG}, {"method": "diet"}),
    "norms of heads": (
        "phi",
        {"qk_layernorm": True},
        {"method": {"name": "wanda_sp", "units": ["kv_groups"]}},
    ),
    "scaled by number": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, {"method": "layer_drop"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_some_settings_keep_units_that_others_of_the_family_can_lose(
    name: str, tmp_path: Path
) -> None:
    model_type, setting, asked = SETTINGS[name]
    whole = wide(model_type) if model_type == "phi" else {}
    layout = layout_of(facts_of(tmp_path / "with", model_type, **whole, **setting))
    error = refusal_of(layout, **asked)
    assert isinstance(error, UnitsUnsupported)
    (reason,) = {one.reason for one in layout.family.fixed_when}
    assert reason in error.message
    zeros = {"pattern": {"name": "units", "mode": "zero"}}
    assert refusal_of(layout, **asked, **zeros) is None
    plain = layout_of(facts_of(tmp_path / "without", model_type, **whole))
    kinds = layout.family.fixed_when[0].kinds
    assert all(cutter(plain).refusal(kind) is None for kind in kinds)


def test_the_older_name_of_rotary_settings_counts_too(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, "phi3")
    layout = layout_of(replace(facts, config=facts.config | {"rope_scaling": LONG}))
    assert set(layout.fixed) == {"hidden", "kv_groups"}
    assert not layout_of(replace(facts, config=facts.config | {"rope_scaling": None})).fixed


def test_stock_transformers_refuses_heads_or_widths_that_long_factors_do_not_fit() -> None:
    whole = tiny.config("phi3", rope_parameters=LONG)
    for changes in ({"num_attention_heads": 2, "num_key_value_heads": 1}, {"hidden_size": 24}):
        content = whole.to_dict() | {"head_dim": 8} | changes
        with pytest.raises(Exception, match="short_factor"):
            CONFIG_MAPPING["phi3"].from_dict(content)


def test_a_method_of_which_some_units_can_go_is_taken(tmp_path: Path) -> None:
    assert refusal_of(layout_of(facts_of(tmp_path, "gpt2")), method="wanda_sp") is None


@pytest.mark.parametrize(
    ("model_type", "changes", "units", "fits"),
    [
        ("llama", {}, ["kv_groups", "neurons"], False),
        ("llama", {"attention_bias": True}, ["kv_groups", "neurons"], True),
        ("llama", {"attention_bias": True}, ["neurons"], False),
        ("llama", {"mlp_bias": True}, ["neurons"], True),
        ("mistral", {}, ["kv_groups"], False),
        ("qwen2", {}, ["kv_groups"], False),  # its biases are of q, k and v
        ("phi", {}, ["kv_groups"], True),
        ("gpt2", {}, ["neurons"], True),
        ("gpt_oss", {}, ["neurons"], True),
        ("mixtral", {}, ["neurons"], False),
    ],
)
def test_means_move_only_into_biases_that_are_there(
    model_type: str, changes: dict[str, Any], units: list[str], fits: bool, tmp_path: Path
) -> None:
    layout = layout_of(facts_of(tmp_path, model_type, **changes))
    method = {"name": "flap", "units": units, "compensation": "bias"}
    error = refusal_of(
        layout, method=method, sparsity=0.1, pattern={"name": "units", "mode": "zero"}
    )
    assert (error is None) == fits
    if error is not None:
        assert (error.code, error.pointer) == (
            "METHOD_UNSUPPORTED_FOR_ARCH",
            "/prune/method/compensation",
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "goa", "refinement": [{"name": "refit", "target": "dense"}]},
        {"method": {"name": "goa", "reconstruct": True}},
    ],
)
def test_routed_experts_are_not_fitted_to_the_dense_model(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    error = refusal_of(layout_of(facts_of(tmp_path, "mixtral")), **fields)
    assert isinstance(error, UnitsUnsupported)


def test_protected_heads_beyond_half_are_refused_before_any_block(tmp_path: Path) -> None:
    layout = layout_of(facts_of(tmp_path, "qwen3", **wide("qwen3")))
    method = {"name": "goa", "units": ["kv_groups"], "heads_by": "similarity_protected"}
    for groups, refused in ((3, False), (2, True)):
        size = layout.parameters(replace(layout.sizes, kv_groups=groups))
        error = refusal_of(layout, method=method, sparsity=None, budget={"parameters": size})
        assert (error is not None) == refused
        if error is not None:
            assert isinstance(error, UnitsUnsupported)
            assert "at most 3 of 6 key-value groups, 4 are to go" in error.message


@pytest.mark.parametrize(
    ("blocks", "sparsity", "why"),
    [
        (6, 0.05, "this model has 6"),
        (8, 0.3, "from the 2 blocks"),
        (8, 0.05, None),
    ],
)
def test_goa_s_inner_blocks_must_be_there_and_hold_what_shall_go(
    blocks: int, sparsity: float, why: str | None, tmp_path: Path
) -> None:
    layout = layout_of(facts_of(tmp_path, "llama", num_hidden_layers=blocks))
    method = {"name": "goa", "blocks": "inner", "units": ["neurons"]}
    pattern = {"name": "units", "mode": "zero"}
    error = refusal_of(layout, method=method, sparsity=sparsity, pattern=pattern)
    assert isinstance(error, SizeUnreachable) == (why is not None)
    if why is not None and error is not None:
        assert why in error.message
        assert error.pointer == "/prune/method/blocks"


def test_how_many_tokens_go_is_left_to_the_text(smollm2: Layout) -> None:
    method = {"name": "contextual", "parts": ["embedding"]}
    assert refusal_of(smollm2, method=method, sparsity=0.9) is None
    error = refusal_of(smollm2, method="contextual", sparsity=0.9)
    assert isinstance(error, SizeUnreachable)


@pytest.mark.parametrize("model_type", ["mistral", "gpt2"])
def test_blocks_with_settings_of_their_own_numbers_stay(model_type: str, tmp_path: Path) -> None:
    facts = facts_of(tmp_path, model_type)
    assert "layers" not in layout_of(facts).fixed
    own = facts.config | {"per_layer_config": {"1": {"sliding_window": 4}}}
    assert "by their numbers" in layout_of(replace(facts, config=own)).fixed["layers"]


@pytest.mark.parametrize(
    ("model_type", "change"),
    [
        ("opt", {"hidden_size": None}),  # the embedding is as wide as `word_embed_proj_dim`
        ("llama", {"num_attention_heads": 1024}),
        ("llama", {"num_attention_heads": 3}),
        ("phi3", {"intermediate_size": None}),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    model_type: str, change: dict[str, Any], tmp_path: Path
) -> None:
    facts = facts_of(tmp_path, model_type)
    config = {key: value for key, value in (facts.config | change).items() if value is not None}
    with pytest.raises(ModelInvalid):
        checkpoint.facts_of(config, Stored(facts.tensors, facts.files, {}))


@pytest.mark.parametrize("shape", [(0, 32), (4, 32)])
def test_keys_that_are_no_whole_heads_are_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    facts = facts_of(tmp_path, "llama")
    tensors = {
        name: replace(one, shape=shape) if name.endswith("k_proj.weight") else one
        for name, one in facts.tensors.items()
    }
    with pytest.raises(ModelInvalid):
        layout_of(replace(facts, tensors=tensors))


def test_sizes_are_those_of_one_block(smollm2: Layout) -> None:
    expected = Sizes(hidden=576, neurons=1536, kv_groups=3, layers=30, vocabulary=49152)
    assert smollm2.sizes == expected
    assert (smollm2.query_heads_per_group, smollm2.head_dim) == (3, 64)
