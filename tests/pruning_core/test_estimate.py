"""Defaults that fit the machine, and how long a job is expected to take."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pruning_core.admission import estimate
from pruning_core.admission.estimate import CPU_ITEMS, CPU_SAMPLES, CPU_STEPS, CPU_WINDOWS, Machine
from pruning_core.pipeline.phases import prune
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec
from worker.machine import cpu_flops

CPU, GPU = Machine("cpu", 1e11), Machine("gpu")
WANDA = {"method": "wanda", "sparsity": 0.5}


def sized(machine: Machine | None, **more: Any) -> tuple[PruneSpec, tuple[str, ...]]:
    spec = PruneSpec.model_validate(WANDA | more)
    return estimate.sized(spec, machine, tasks_dir=None, files={})


def minutes(machine: Machine, ref: str = "hf://org/model-1B", **more: Any) -> dict[str, float]:
    spec, _ = sized(machine, **more)
    found = expected(machine, spec, ref)
    assert found is not None
    limits: dict[str, float] = found["minutes"]
    assert limits["low"] < limits["high"]
    return limits


def expected(machine: Machine | None, spec: PruneSpec, ref: str) -> dict[str, Any] | None:
    return estimate.expected(
        ModelRef.model_validate(ref), spec, machine,
        parameters=None, max_positions=None, tasks_dir=None, files={},
    )  # fmt: skip


def test_on_a_cpu_what_nobody_named_is_less() -> None:
    spec, (note,) = sized(CPU, evaluation={"tasks": ["wikitext2", "arc_easy"]}, recovery={})
    assert spec.calibration.default_samples == CPU_SAMPLES
    assert (spec.evaluation.windows, spec.evaluation.items) == (CPU_WINDOWS, CPU_ITEMS)
    assert spec.recovery is not None
    assert spec.recovery.steps == CPU_STEPS
    for count in (CPU_SAMPLES, CPU_WINDOWS, CPU_ITEMS, CPU_STEPS):
        assert f" {count} " in note


@pytest.mark.parametrize(
    "named",
    [
        {"calibration": {"samples": 64}, "evaluation": {"windows": 32}},
        {
            "calibration": {"tasks": [{"name": "c4", "samples": 64}]},
            "evaluation": {"tasks": [], "windows": 16},
        },
        {"calibration": {"default_samples": 128}, "evaluation": {"windows": None}},
    ],
)
def test_what_was_named_stays(named: dict[str, Any]) -> None:
    spec, notes = sized(CPU, **named)
    asked = PruneSpec.model_validate(WANDA | named)
    assert notes == ()
    assert spec.evaluation == asked.evaluation
    assert spec.calibration.tasks == asked.calibration.tasks


@pytest.mark.parametrize("machine", [GPU, None])
@pytest.mark.parametrize(("method", "samples"), [("wanda", 128), ("diet", 100)])
def test_elsewhere_the_numbers_are_written_down_as_they_are(
    machine: Machine | None, method: str, samples: int
) -> None:
    spec, notes = sized(machine, method=method)
    assert notes == ()
    assert spec.calibration.default_samples == samples
    assert spec.evaluation.windows == 16
    again, _ = estimate.sized(spec, CPU, tasks_dir=None, files={})
    assert again.calibration == spec.calibration


def test_without_calibration_no_word_of_it() -> None:
    _, notes = sized(CPU, method="magnitude", evaluation={"tasks": []})
    assert notes == ()


@pytest.mark.parametrize(
    ("more", "factor"),
    [
        ({"calibration": {"tasks": ["c4"], "samples": 80}}, (4, 10)),
        ({"evaluation": {"windows": 40}}, (1.5, 4)),
        ({"evaluation": {"tasks": []}}, (0.2, 0.9)),
        ({"recovery": {"steps": 100}}, (5, 20)),
        ({"method": "flap", "sparsity": 0.2}, (1.05, 2)),
    ],
)
def test_more_work_takes_longer(more: dict[str, Any], factor: tuple[float, float]) -> None:
    ratio = minutes(CPU, **more)["high"] / minutes(CPU)["high"]
    assert factor[0] < ratio < factor[1]


def test_twice_the_model_or_half_the_speed_takes_about_twice_as_long() -> None:
    one = minutes(CPU)["high"]
    assert minutes(CPU, "hf://org/model-2B")["high"] == pytest.approx(2 * one, rel=0.1)
    assert minutes(Machine("cpu", 5e10))["high"] == pytest.approx(2 * one, rel=0.1)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("hf://Qwen/Qwen3-0.6B", 600_000_000),
        ("hf://HuggingFaceTB/SmolLM2-135M-Instruct", 135_000_000),
        ("hf://meta-llama/Llama-3.1-8B-Instruct", 8_000_000_000),
        ("hf://google/gemma-3-270m", 270_000_000),
        ("file:///models/SmolLM2-135M-Instruct.Q4_1.gguf", 135_000_000),
        ("hf://openai-community/gpt2", None),
        ("hf://org/model-v2", None),
        ("hf://org/0M", None),
        ("hf://org/ab12Bc", None),
    ],
)
def test_a_name_may_tell_the_size(name: str, size: int | None) -> None:
    assert estimate.size_in(name) == size


def test_a_job_without_text_is_read_and_written() -> None:
    spec, _ = sized(CPU, method="magnitude", evaluation={"tasks": []})
    found = expected(CPU, spec, "hf://org/model-1B")
    assert found is not None
    assert found["basis"].startswith("1,000 million parameters (by its name) read and written on a")
    assert found["minutes"]["high"] < minutes(CPU)["high"]


def test_what_is_not_known_is_not_guessed() -> None:
    spec, _ = sized(CPU)
    found = expected(CPU, spec, "hf://org/model")
    assert found is not None
    assert found["minutes"] is None
    assert "size" in found["basis"]
    assert expected(None, spec, "hf://org/model-1B") is None


@pytest.mark.parametrize(
    ("more", "left_out"),
    [
        ({}, "waiting, the download"),
        ({"recovery": {"minutes": 5}}, "waiting, the download, recovery"),
        ({"reconstruction": {}}, "reconstruction"),
    ],
)
def test_what_is_not_counted_is_said(more: dict[str, Any], left_out: str) -> None:
    spec, _ = sized(CPU, **more)
    found = expected(CPU, spec, "hf://org/model-1B")
    assert found is not None
    assert found["basis"].endswith(left_out)


@pytest.mark.quality
def test_the_real_small_model_takes_about_as_long_as_expected(
    smollm2: Path, tmp_path: Path
) -> None:
    """Both the speed of products and the run are taken under the load that there is."""
    text = {
        "calibration": {"samples": 8, "seq_len": 256},
        "evaluation": {"windows": 2, "seq_len": 256, "speed": False},
    }
    spec, _ = sized(CPU, **text)
    machine = Machine("cpu", cpu_flops())
    found = estimate.expected(
        ModelRef(ref=smollm2.as_uri()), spec, machine,
        parameters=134_515_008, max_positions=8192, tasks_dir=None, files={},
    )  # fmt: skip
    assert found is not None
    started = time.monotonic()
    prune(smollm2, spec, tmp_path)
    took = (time.monotonic() - started) / 60
    assert found["minutes"]["low"] / 1.5 <= took <= found["minutes"]["high"] * 1.5, (found, took)
