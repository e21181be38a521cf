"""Reports of many shapes, without pruning anything."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

from pruning_core.spec.base import digest
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import RecoveryPoint, RecoveryReport
from pruning_core.spec.report import Origin, Report
from pruning_core.spec.report_parts.data import CalibrationReport, DataReport, Overlap
from pruning_core.spec.report_parts.files import FileEntry, Verification
from pruning_core.spec.report_parts.quality import (
    Accuracy,
    GateReport,
    HarnessMetric,
    Interval,
    Perplexity,
    Score,
)
from pruning_core.spec.report_parts.removal import (
    BlockReport,
    MatrixReport,
    ReconstructionReport,
    SizeReport,
    UnitReport,
    VocabularyCoverage,
)
from pruning_core.spec.report_parts.search import SearchReport, TrialReport
from pruning_core.spec.report_parts.speed import SpeedRatio, SpeedReport, Throughput, Timing

KINDS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
SHA = "0123456789abcdef" * 4
MASKS_ONLY = "Zeros alone make a dense file no smaller and a forward pass no faster."
HOSTILE = (
    "<script>alert('&\"')</script><img src=https://example.org/x> \x00\x1b $x_1$ | `code` \u202e"
)
SEARCHED = {
    "method": {"name": "crepe", "search": {"name": "pho"}},
    "sparsity": 0.5,
    "allocation": "owl",
    "refinement": ["dsnot"],
    "reconstruction": {},
}


def interval(value: float, width: float = 0.04) -> Interval:
    return Interval(low=value * (1 - width), high=value * (1 + width))


def blocks(count: int, *, error: bool = True, trained: bool = False) -> tuple[BlockReport, ...]:
    draw = random.Random(0)
    return tuple(
        BlockReport(
            block=index,
            seconds=1.5,
            file=f"block-{index:05d}.safetensors",
            sha256=SHA,
            bytes=1 << 20,
            matrices=tuple(
                MatrixReport(
                    name=f"model.layers.{index}.{kind}.weight",
                    shape=(64, 64),
                    zeros=2048,
                    removed=2048,
                    sparsity=0.5 + 0.1 * (index - count / 2) / count,
                    error=0.05 + 0.02 * number + 0.01 * draw.random() if error else None,
                )
                for number, kind in enumerate(KINDS)
            ),
            reconstruction=ReconstructionReport(steps=64, loss_before=0.02, loss_after=0.01)
            if trained
            else None,
        )
        for index in range(count)
    )


def perplexity(task: str, dense: float | None, pruned: float) -> Perplexity:
    ratio = pruned / dense if dense else None
    return Perplexity(
        task=task,
        windows=16,
        seq_len=2048,
        tokens=32752,
        dense=dense,
        pruned=pruned,
        dense_interval=interval(dense) if dense else None,
        pruned_interval=interval(pruned),
        ratio=ratio,
        ratio_interval=interval(ratio, 0.01) if ratio else None,
        resampled="documents",
        units=57,
        digest=f"sha256:{SHA}",
    )


def score(dense: float | None, pruned: float, p_value: float | None) -> Score:
    return Score(
        dense=dense,
        pruned=pruned,
        dense_interval=interval(dense, 0.08) if dense is not None else None,
        pruned_interval=interval(pruned, 0.1),
        lost=None if dense is None else 41,
        gained=None if dense is None else 12,
        p_value=p_value,
    )


def accuracy(task: str, *, baseline: bool = True) -> Accuracy:
    return Accuracy(
        task=task,
        items=400,
        chance=0.25,
        acc=score(0.62 if baseline else None, 0.55, 0.0001 if baseline else None),
        acc_norm=score(0.6 if baseline else None, 0.59, 0.61 if baseline else None),
        digest=f"sha256:{SHA}",
    )


def search() -> SearchReport:
    draw = random.Random(1)
    return SearchReport(
        name="pho",
        evaluations=175,
        seconds_observing=31.5,
        seconds_searching=12.25,
        seconds_checking=64.0,
        windows=8,
        digest=f"sha256:{SHA}",
        perplexity_ria=21.5,
        perplexity_found=20.75,
        kept_ria=False,
        alpha=0.7321,
        beta=0.3,
        gamma=0.9679,
        kernel=5,
        trials=tuple(
            TrialReport(g=0.1, b=0.2, kernel=3, value=2.0 + 8 * draw.random() / (1 + number / 20))
            for number in range(175)
        ),
    )


def speed(prefill: float, decode: float, **changes: Any) -> SpeedReport:
    """Of a pruned model that reads and writes so many tokens per second."""
    measured: dict[str, Any] = {
        "dense": Throughput(prefill=1834.2, decode=27.13),
        "pruned": Throughput(prefill=prefill, decode=decode),
        "ratios": {
            phase: SpeedRatio(value=ratio, interval=interval(ratio, 0.02))
            for phase, ratio in (("prefill", prefill / 1834.2), ("decode", decode / 27.13))
        },
        "rounds": 24,
        "busy_cores": 0.1,
        "prompt_tokens": 512,
        "new_tokens": 64,
    }
    return SpeedReport(**measured | changes)


def report(spec: dict[str, Any] | None = None, **changes: Any) -> Report:
    """The least that a report holds; `changes` add to it."""
    made = PruneSpec.model_validate(spec or {"method": "magnitude", "sparsity": 0.5})
    least: dict[str, Any] = {
        "origin": Origin(model="file:///models/SmolLM2-135M", job_id="job_7", job_name="nightly"),
        "started_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "finished_at": datetime(2026, 1, 2, 3, 9, tzinfo=UTC),
        "spec": made,
        "spec_digest": digest(made),
        "fingerprint": f"sha256:{SHA}",
        "model_digest": f"sha256:{SHA}",
        "family": "llama",
        "architecture": "LlamaForCausalLM",
        "parameters": 134_515_008,
        "parameters_after": 134_515_008,
        "parameters_nonzero": 81_427_776,
        "bytes_before": 269_030_016,
        "bytes_after": 269_030_016,
        "sparsity": 0.5,
        "sparsity_model": 0.3947,
        "calibration": None,
        "perplexity": (),
        "blocks": blocks(1, error=False),
        "resumed_blocks": 0,
        "timing": Timing(phases={"pruning": 83.4, "saving": 1.2}, prune_over_forward=None),
        "peak_memory_bytes": {"host": 1_234_567_890},
        "verification": Verification(
            loads_in={"transformers": "5.23.0"}, max_logit_difference=3.1e-07, sample="a tool."
        ),
        "files": (
            FileEntry(path="config.json", bytes=812, sha256=SHA, media_type="application/json"),
        ),
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "device": "cpu: 2 threads",
        "warnings": (MASKS_ONLY,),
    }
    return Report(**least | changes)


def full(count: int = 30, **changes: Any) -> Report:
    """Everything that a report can hold."""
    everything: dict[str, Any] = {
        "calibration": CalibrationReport(
            tasks={"python_docs": 128, "law_contracts": 64},
            seq_len=2048,
            tokens=393_216,
            seed=42,
            digest=f"sha256:{SHA}",
        ),
        "search": search(),
        "ratios": tuple(0.42 + 0.16 * index / max(1, count - 1) for index in range(count)),
        "perplexity": (
            perplexity("python_docs", 9.8765, 13.4321),
            perplexity("law_contracts", 15.2, 15.25),
            perplexity("wikitext2", 17.4, 25.9),
        ),
        "accuracy": (accuracy("arc_easy"), accuracy("medqa"), accuracy("casehold")),
        "harness": (
            HarnessMetric(
                task="piqa", metric="acc", dense=0.68, pruned=0.65, dense_stderr=0.01,
                pruned_stderr=0.011, items=1838,
            ),
        ),
        "speed": speed(1840.9, 27.01),
        "gates": (
            GateReport(metric="python_docs.ppl_ratio", min=None, max=1.5, value=1.36, passed=True),
            GateReport(metric="medqa.acc_drop", min=None, max=0.05, value=0.07, passed=False),
        ),
        "data": (
            DataReport(
                task="python_docs", split="calibration", origin="built-in", items=812,
                digest=f"sha256:{SHA}", licence="PSF-2.0",
            ),
            DataReport(
                task="law_contracts", split="eval", origin="hub", revision="5f3c" * 10, items=400,
                digest=f"sha256:{SHA}",
            ),
        ),
        "overlaps": (
            Overlap(calibration_task="law_contracts", evaluation_task="casehold", items=3),
        ),
        "licence": "apache-2.0",
        "blocks": blocks(count, trained=True),
        "timing": Timing(
            phases={"evaluating": 301.2, "searching": 107.75, "pruning": 3833.4, "saving": 1.2},
            prune_over_forward=7.31,
        ),
        "verification": Verification(
            loads_in={"transformers": "5.23.0"},
            max_logit_difference=3.1e-07,
            sample=" that it is a way to be able to be able to be able to express ourselves.",
            dense_sample=" that it is a tool for communication. It is a way to express thoughts.",
        ),
        "files": tuple(
            FileEntry(path=path, bytes=size, sha256=SHA, media_type="application/octet-stream")
            for path, size in (("config.json", 812), ("model.safetensors", 269_060_552))
        ),
    }  # fmt: skip
    return report(SEARCHED, **everything | changes)


def unit_blocks(
    count: int, removed: dict[str, tuple[int, int]], *, refit: bool = False
) -> tuple[BlockReport, ...]:
    """Blocks that lose whole units: by kind, how many of how many."""
    draw = random.Random(2)
    return tuple(
        block.model_copy(
            update={
                "matrices": (),
                "units": tuple(
                    UnitReport(
                        kind=kind,
                        of=whole,
                        removed=lost,
                        digest=f"sha256:{SHA}",
                        error=0.1 + 0.05 * draw.random(),
                        error_before_refit=0.3 + 0.1 * draw.random() if refit else None,
                        ridge=draw.choice((0.01, 0.1, 1.0)) if refit else None,
                    )
                    for kind, (lost, whole) in removed.items()
                ),
            }
        )
        for block in blocks(count, error=False)
    )


def shrunk(spec: dict[str, Any], removed: int, **changes: Any) -> Report:
    """A report of a model that lost `removed` parameters with whole units."""
    whole = 134_515_008
    least: dict[str, Any] = {
        "parameters": whole,
        "parameters_after": whole - removed,
        "parameters_nonzero": whole - removed,
        "bytes_before": 2 * whole,
        "bytes_after": 2 * (whole - removed),
        "sparsity": removed / whole,
        "sparsity_model": removed / whole,
        "warnings": (),
    }
    return report(spec, **least | changes)


def fine_tuned(*, best_step: int = 80, distilled: bool = False) -> RecoveryReport:
    return RecoveryReport(
        method="full",
        steps=120,
        epochs=1.5,
        seconds=93.5,
        windows=640,
        tokens=327_680,
        trained_tokens=491_520,
        validation_windows=71,
        validation_tokens=36_352,
        validations=7,
        loss_before=3.4321,
        loss_after=3.0123 if best_step else 3.4321,
        best_step=best_step,
        stopped="patience",
        history=tuple(
            RecoveryPoint(step=step, training_loss=3.5 - step / 400, validation_loss=loss)
            for step in range(20, 121, 20)
            for loss in ((3.0123 if best_step else 3.45) + abs(step - best_step) / 500,)
        ),
        distilled=distilled,
        precision="fp32",
        digest=f"sha256:{SHA}",
    )


def refitted(count: int = 30, **changes: Any) -> Report:
    """Heads and neurons removed, and what is left of the read-outs fitted."""
    spec = {"method": "goa", "sparsity": 0.2, "refinement": ["refit"], "recovery": {"steps": 120}}
    least: dict[str, Any] = {
        "sizes": (
            SizeReport(kind="neurons", before=1536, after=1184, parameters_removed=18_247_680),
            SizeReport(kind="kv_groups", before=3, after=2, parameters_removed=8_847_360),
        ),
        "blocks": unit_blocks(count, {"kv_groups": (1, 3), "neurons": (352, 1536)}, refit=True),
        "recovery": fine_tuned(),
        "perplexity": (perplexity("python_docs", 9.8765, 13.4321),),
        "speed": speed(2240.9, 33.01),
    }
    return shrunk(spec, 27_095_040, **least | changes)


def without_layers(**changes: Any) -> Report:
    """Whole blocks removed."""
    least: dict[str, Any] = {
        "sizes": (SizeReport(kind="layers", before=30, after=25, parameters_removed=17_697_600),),
        "removed_blocks": (4, 20, 21, 22, 27),
        "blocks": unit_blocks(30, {}),
    }
    return shrunk({"method": "layer_drop", "sparsity": 0.13}, 17_697_600, **least | changes)


def without_tokens(**changes: Any) -> Report:
    """Neurons and tokens removed as a threshold decides, then fine-tuned in vain."""
    method = {"name": "contextual", "parts": ["activation", "embedding"], "relative": 0.1}
    spec = {"method": method, "recovery": {}, "calibration": ["python_docs"]}
    bits = {"bits_per_byte_dense": 1.2345, "bits_per_byte_pruned": 1.3579}
    least: dict[str, Any] = {
        "sizes": (
            SizeReport(kind="neurons", before=1536, after=1528, parameters_removed=414_720),
            SizeReport(kind="vocabulary", before=49152, after=18152, parameters_removed=17_856_000),
        ),
        "vocabulary": (
            VocabularyCoverage(task="python_docs", tokens=32752, kept=0.9832, tokens_after=33811),
        ),
        "blocks": unit_blocks(30, {"neurons": (8, 1536)}),
        "recovery": fine_tuned(best_step=0),
        "perplexity": (perplexity("python_docs", 9.8765, 13.4321).model_copy(update=bits),),
    }
    return shrunk(spec, 18_270_720, **least | changes)


def zeroed(**changes: Any) -> Report:
    """Neurons and single rows zeroed, not the same number in every block."""
    method = {"name": "contextual", "relative": 0.1}
    spec = {"method": method, "pattern": {"name": "units", "mode": "zero"}}
    more = unit_blocks(3, {"neurons": (24, 1536)})[2]
    least: dict[str, Any] = {
        "parameters_nonzero": 120_515_008,
        "sparsity": 0.1041,
        "sparsity_model": 0.1041,
        "blocks": (*unit_blocks(2, {"neurons": (8, 1536)}), more),
    }
    return report(spec, **least | changes)


def masked_residual(**changes: Any) -> Report:
    """Residual dimensions zeroed, others in every block."""
    method = {"name": "diet", "granularity": "per_layer"}
    spec = {"method": method, "sparsity": 0.2, "pattern": {"name": "units", "mode": "zero"}}
    size = SizeReport(kind="hidden", before=576, after=460, parameters_removed=27_000_000)
    least: dict[str, Any] = {"sparsity": 0.2, "sizes": (size,), "blocks": unit_blocks(30, {})}
    return report(spec, **least | changes)
