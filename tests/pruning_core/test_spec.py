"""The public vocabulary: shorthands, defaults, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pruning_core.spec.base import digest
from pruning_core.spec.methods import Wanda
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec


def test_the_one_line_job_is_expanded_in_full() -> None:
    spec = PruneSpec.model_validate({"method": "wanda", "sparsity": 0.5, "calibration": ["c4"]})
    echoed = spec.model_dump(mode="json")
    assert echoed["method"] == {"name": "wanda"}
    assert echoed["pattern"] == {"name": "row"}
    assert echoed["calibration"]["tasks"] == [{"name": "c4", "samples": None}]
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
