"""Specifications and reports for tests that are not about pruning."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pruning_core.spec.base import digest
from pruning_core.spec.element_methods import CRePE
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Origin, Report
from pruning_core.spec.report_parts.files import FileEntry, Verification
from pruning_core.spec.report_parts.quality import GateReport, Perplexity
from pruning_core.spec.report_parts.search import SearchReport
from pruning_core.spec.report_parts.speed import Timing

SPEC: dict[str, Any] = {
    "model": {"ref": "file:///models/tiny", "revision": None},
    "prune": PruneSpec.model_validate({"method": "wanda", "sparsity": 0.5}).model_dump(mode="json"),
}


def search_spec(**changes: Any) -> dict[str, Any]:
    """A job whose search stores what it finds as the preset `mine`."""
    prune = {
        "method": {"name": "crepe", "search": {"name": "pho", "save_as": "mine"}},
        "sparsity": 0.5,
        **changes,
    }
    return {**SPEC, "prune": PruneSpec.model_validate(prune).model_dump(mode="json")}


def sample_search(spec: PruneSpec, *, kept_ria: bool) -> SearchReport | None:
    if not isinstance(spec.method, CRePE) or spec.method.search is None:
        return None
    alpha, beta, gamma = (1.0, 1.0, 0.0) if kept_ria else (0.7321, 0.3, 0.9679)
    return SearchReport(
        name=spec.method.search.name,
        evaluations=175,
        seconds_observing=3.0,
        seconds_searching=3.0,
        seconds_checking=3.0,
        windows=spec.method.search.windows,
        digest="sha256:3",
        perplexity_ria=12.0,
        perplexity_found=11.5,
        kept_ria=kept_ria,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        kernel=3 if kept_ria else 5,
        trials=(),
    )


def sample_report(
    spec: PruneSpec, files: Sequence[FileEntry], *, sample: str, kept_ria: bool = False
) -> Report:
    return Report(
        origin=Origin(model="file:///models/none"),
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
        finished_at=datetime(2026, 1, 2, 1, tzinfo=UTC),
        spec=spec,
        spec_digest=digest(spec),
        fingerprint="sha256:0",
        model_digest="sha256:1",
        family="llama",
        architecture="LlamaForCausalLM",
        parameters=1000,
        parameters_after=1000,
        parameters_nonzero=600,
        bytes_before=2000,
        bytes_after=2000,
        sparsity=0.5,
        sparsity_model=0.4,
        calibration=None,
        search=sample_search(spec, kept_ria=kept_ria),
        perplexity=(
            Perplexity(
                task="python_docs",
                windows=1,
                seq_len=8,
                tokens=7,
                dense=10.0,
                pruned=12.0,
                digest="sha256:2",
            ),
        ),
        gates=tuple(
            GateReport(**gate.model_dump(), value=12.0, passed=(gate.max or 12.0) >= 12.0)
            for gate in spec.gates
        ),
        blocks=(),
        resumed_blocks=0,
        timing=Timing(phases={}, prune_over_forward=2.0),
        peak_memory_bytes={"host": 1},
        verification=Verification(
            loads_in={"transformers": "5"}, max_logit_difference=0.0, sample=sample
        ),
        files=tuple(files),
        versions={},
        device="cpu",
        warnings=("masks make nothing smaller",),
    )
