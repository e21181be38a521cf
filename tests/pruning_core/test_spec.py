"""The public vocabulary: shorthands, defaults, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pruning_core.spec.base import digest
from pruning_core.spec.composition import Dsnot, Owl, Polish, Reconstruction
from pruning_core.spec.element_methods import Wanda
from pruning_core.spec.model import ModelRef
from pruning_core.spec.patterns import NofM
from pruning_core.spec.prune import PruneSpec

TWO_OF_FOUR = {"name": "n:m", "n": 2, "m": 4}


def test_the_one_line_job_is_expanded_in_full() -> None:
    spec = PruneSpec.model_validate({"method": "wanda", "sparsity": 0.5, "calibration": ["c4"]})
    echoed = spec.model_dump(mode="json")
    assert echoed["method"] == {"name": "wanda"}
    assert echoed["allocation"] == {"name": "uniform"}
    assert (echoed["refinement"], echoed["reconstruction"]) == ([], None)
    assert echoed["pattern"] == {"name": "row"}
    assert echoed["calibration"]["tasks"] == [{"name": "c4", "samples": None, "weight": None}]
    assert PruneSpec.model_validate(echoed) == spec
    assert digest(PruneSpec.model_validate(echoed)) == digest(spec)


def test_magnitude_compares_the_whole_matrix_by_default() -> None:
    assert (
        PruneSpec.model_validate({"method": "magnitude", "sparsity": 0.5}).pattern.name == "matrix"
    )


def test_n_of_m_names_the_kept_weights_and_implies_the_ratio() -> None:
    spec = PruneSpec.model_validate({"method": "wanda", "pattern": {"name": "n:m", "n": 1, "m": 4}})
    assert spec.ratio == 0.75


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sparcity": 0.5}, "Extra inputs"),
        ({"method": "wander"}, "does not match any of the expected tags"),
        ({"sparsity": 0}, "greater than 0"),
        ({"sparsity": 1}, "less than 1"),
        ({"sparsity": float("nan")}, "finite"),
        ({"sparsity": None}, "exactly one of"),
        ({"pattern": {"name": "n:m", "n": 2, "m": 4}}, "exactly one of"),
        ({"sparsity": None, "pattern": {"name": "n:m", "n": 4, "m": 4}}, "removes nothing"),
        ({"sparsity": None, "pattern": {"name": "n:m", "n": 5, "m": 4}}, "removes nothing"),
        ({"pattern": "diagonal"}, "does not match any of the expected tags"),
        ({"calibration": []}, "at least 1"),
        ({"calibration": ["c4", "c4"]}, "named twice"),
        ({"calibration": [{"name": "c4", "samples": 0}]}, "greater than or equal to 1"),
        ({"calibration": {"tasks": ["../etc"]}}, "match pattern"),
        ({"method": {"name": "wanda", "alpha": 1}}, "Extra inputs"),
    ],
)
def test_bad_values_are_refused_with_the_reason(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PruneSpec.model_validate({"method": "wanda", "sparsity": 0.5} | changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sparsity": None, "pattern": TWO_OF_FOUR, "allocation": "owl"}, "n:m fixes it"),
        ({"allocation": "fair"}, "does not match any of the expected tags"),
        ({"allocation": "owl", "sparsity": 0.96}, "at most 0.95"),
        ({"allocation": {"name": "ramp", "delta": 0.1}, "sparsity": 0.05}, "at most 0.050"),
        ({"allocation": {"name": "ramp", "delta": 0.2}, "sparsity": 0.8}, "at most 0.150"),
        ({"allocation": {"name": "owl", "delta": 0.2}}, "Extra inputs"),
        ({"refinement": ["sandpaper"]}, "does not match any of the expected tags"),
        ({"refinement": "polish"}, "valid tuple"),
        ({"refinement": ["polish"] * 9}, "9 items; 8 are allowed"),
        ({"refinement": [{"name": "polish", "steps": 0}]}, "greater than or equal to 1"),
        ({"refinement": [{"name": "polish", "damp": -1}]}, "greater than or equal to 0"),
        ({"reconstruction": {"held_out": 1}}, "less than or equal to 0.5"),
        ({"reconstruction": {"held_out": 0}}, "greater than 0"),
        ({"method": {"name": "sparsegpt", "damp": 0}}, "greater than 0"),
        ({"method": {"name": "alps", "schedule": "slow"}}, "Input should be 'adaptive'"),
        (
            {
                "method": {"name": "sparsegpt", "block": 130},
                "sparsity": None,
                "pattern": TWO_OF_FOUR,
            },
            r"block \(130\) must be a multiple of m \(4\)",
        ),
        ({"sparsity": None, "pattern": TWO_OF_FOUR | {"permute": "all"}}, "Input should be 'none'"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PruneSpec.model_validate({"method": "wanda", "sparsity": 0.5} | changes)


ZERO = {"name": "units", "mode": "zero"}
VOTED = {"name": "diet", "granularity": "units"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"method": {"name": "goa", "reconstruct": True}, "refinement": ["refit"]},
            "fits what stays already",
        ),
        ({"method": VOTED | {"statistic": "rms"}}, "statistic would do nothing"),
        ({"method": VOTED | {"bos": "keep", "rescale": False}}, "bos, rescale would do nothing"),
        ({"method": VOTED | {"layer_norm": "none"}}, "layer_norm would do nothing"),
        ({"method": VOTED | {"layer_reduce": "mean"}}, "layer_reduce would do nothing"),
        (
            {
                "method": {"name": "diet", "granularity": "per_layer"},
                "pattern": ZERO,
                "refinement": [{"name": "refit", "target": "dense"}],
            },
            "does not go with granularity per_layer",
        ),
        (
            {
                "method": {"name": "contextual", "parts": ["embedding"], "relative": 0.1},
                "sparsity": None,
            },
            "token_threshold",
        ),
        (
            {"method": {"name": "contextual", "parts": ["embedding"], "absolute": 0}}
            | {"sparsity": None},
            "token_threshold",
        ),
        (
            {"method": "flap", "sparsity": None, "budget": {"bytes": 1000}, "pattern": ZERO},
            "a budget is the size of a smaller model",
        ),
    ],
)
def test_parts_of_a_removal_that_would_do_nothing_are_refused(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        PruneSpec.model_validate({"sparsity": 0.2} | changes)


def test_parts_of_a_removal_that_do_something_are_taken() -> None:
    for changes in (
        {"method": "goa", "refinement": ["refit"]},
        {"method": VOTED | {"merge": "mean_score"}, "refinement": ["refit"]},
        {"method": {"name": "diet", "statistic": "rms", "bos": "keep"}},
        {"method": {"name": "contextual", "parts": ["embedding"]}},
        {"method": "flap", "sparsity": None, "budget": {"bytes": 1000}},
    ):
        PruneSpec.model_validate({"sparsity": 0.2} | changes)


def test_parts_that_just_go_together_are_taken() -> None:
    for changes in (
        {"allocation": {"name": "ramp", "delta": 0.15}, "sparsity": 0.8},
        {"allocation": "alphapruning", "sparsity": 0.95},
        {"method": {"name": "sparsegpt", "block": 130}},
        {"method": "sparsegpt", "sparsity": None, "pattern": TWO_OF_FOUR},
    ):
        spec = PruneSpec.model_validate({"method": "wanda", "sparsity": 0.5} | changes)
        assert PruneSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_names_stand_for_parts_with_their_defaults() -> None:
    fields = {"allocation": "owl", "refinement": ["dsnot", {"name": "polish", "steps": 3}]}
    spec = PruneSpec.model_validate(
        {"method": "wanda", "sparsity": 0.5, "reconstruction": {}, **fields}
    )
    assert spec.allocation == Owl()
    assert spec.refinement == (Dsnot(), Polish(steps=3))
    assert spec.reconstruction == Reconstruction()


def test_channels_are_reordered_on_request_and_true_means_foldable() -> None:
    for given, meant in ((True, "fold"), (False, "none"), ("mask", "mask"), (None, None)):
        pattern = TWO_OF_FOUR if given is None else TWO_OF_FOUR | {"permute": given}
        spec = PruneSpec.model_validate({"method": "wanda", "pattern": pattern})
        assert isinstance(spec.pattern, NofM)
        assert spec.pattern.permute == (meant or "none")


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({}, False),
        ({"allocation": "alphapruning"}, False),
        ({"allocation": "ramp"}, False),
        ({"allocation": "owl"}, True),
        ({"refinement": ["polish"]}, True),
        ({"reconstruction": {}}, True),
        ({"method": "alps"}, True),
    ],
)
def test_text_is_needed_where_any_part_reads_it(changes: dict[str, Any], needs: bool) -> None:
    spec = PruneSpec.model_validate({"method": "magnitude", "sparsity": 0.5} | changes)
    assert spec.needs_calibration == needs


@pytest.mark.parametrize(
    ("text", "repo", "revision", "path"),
    [
        ("hf://org/name", "org/name", None, None),
        ("hf://org/name@v1.0", "org/name", "v1.0", None),
        ("hf://gpt2", "gpt2", None, None),
        ("file:///models/with%20space", None, None, "/models/with space"),
    ],
)
def test_model_references(text: str, repo: str, revision: str | None, path: str | None) -> None:
    model = ModelRef.model_validate(text)
    assert (model.repo, model.revision) == (repo, revision)
    assert (str(model.path) if model.path else None) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt2",
        "http://x/y",
        "hf://../x",
        "hf://a/b/c",
        "file://relative",
        "file:///a\0b",
        "file:///a%00b",
        "hf://org/a--b",
        "hf://org/a..b",
        "hf://org/a.git",
        "s3://b/k",
    ],
)
def test_other_references_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        ModelRef.model_validate(text)


def test_a_pattern_that_the_method_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wanda, "patterns", ("row",))
    with pytest.raises(
        ValidationError, match="wanda cannot produce the pattern matrix; it can: row"
    ):
        PruneSpec.model_validate({"method": "wanda", "sparsity": 0.5, "pattern": "matrix"})


def test_the_schema_admits_the_shorthands_that_the_class_takes() -> None:
    properties = PruneSpec.model_json_schema()["properties"]
    assert {"type": "string"} in properties["method"]["anyOf"]
    assert "matrix" in str(properties["pattern"])
    assert any(kind.get("type") == "array" for kind in properties["calibration"]["anyOf"])
    assert "method" in PruneSpec.model_json_schema()["required"]
