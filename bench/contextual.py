"""`python -m bench.contextual`: contextual pruning for a domain, before, after, and after fine-tuning, in and out of the domain.

Two jobs per domain, as a user would submit them: pruned, and pruned then fine-tuned on the same calibration split. Evaluation
splits are disjoint from it. Results are kept in docs/contextual.json as they come; a second run does what is missing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.model import smollm2
from pruning_core.pipeline.phases import prune
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report

RESULTS = Path("docs/contextual.json")
DOMAINS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "medicine": (("medicine_text",), ("medmcqa",)),
    "law": (("law_opinions",), ("mmlu_law",)),
    "finance": (("finance_text", "economics_text"), ("mmlu_economics",)),
}
"""Texts and questions of each domain."""
OUTSIDE = ("wikitext2", "arc_easy")


def asked(domain: str, *, steps: int, items: int, windows: int) -> dict[str, Any]:
    """Return the specification of a domain; without steps nothing is fine-tuned."""
    texts, questions = DOMAINS[domain]
    spec: dict[str, Any] = {
        "method": {"name": "contextual", "parts": ["embedding"]},
        "calibration": {
            "tasks": [{"name": name, "samples": 200 // len(texts)} for name in texts],
            "seq_len": 512,
        },
        "evaluation": {
            "tasks": [*texts, *questions, *OUTSIDE],
            "items": items,
            "windows": windows,
            "seq_len": 512,
            "baseline": not steps,
            "speed": False,
        },
    }
    if steps:
        spec["recovery"] = {
            "learning_rate": 1e-4,
            "steps": steps,
            "batch": 2,
            "validation": 0.02,
            "evaluate_every": 0.05,
            "warmup": 0.1,
        }
    return spec


def figures(report: Report) -> dict[str, Any]:
    """Return what the page shows of a report."""
    measured = report.spec.evaluation
    entry: dict[str, Any] = {
        "evaluation": f"{measured.items} items, {measured.windows} x {measured.seq_len} tokens",
        "share": report.sparsity,
        "parameters": [report.parameters, report.parameters_after],
        "sizes": {size.kind: [size.before, size.after] for size in report.sizes},
        "seconds": report.timing.phases,
    }
    for text in report.perplexity:
        entry[text.task] = {"perplexity": [text.dense, text.pruned], "ratio": text.ratio}
        entry[text.task]["interval"] = text.ratio_interval and text.ratio_interval.model_dump()
        entry[text.task]["bits_per_byte"] = [text.bits_per_byte_dense, text.bits_per_byte_pruned]
    for task in report.accuracy:
        entry[task.task] = {"acc": [task.acc.dense, task.acc.pruned], "p_value": task.acc.p_value}
    if report.recovery is not None:
        entry["recovery"] = report.recovery.model_dump(mode="json", exclude={"history", "digest"})
    return entry


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", default=",".join(DOMAINS))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--items", type=int, default=50)
    parser.add_argument("--windows", type=int, default=8)
    chosen = parser.parse_args()
    for domain in chosen.domains.split(","):
        for steps in (0, chosen.steps):
            key = f"{domain}, {steps} steps"
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            if key in results:
                continue
            spec = asked(domain, steps=steps, items=chosen.items, windows=chosen.windows)
            with tempfile.TemporaryDirectory() as out:
                report = prune(smollm2(), PruneSpec.model_validate(spec), Path(out))
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            results[key] = figures(report)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(key, results[key], flush=True)


if __name__ == "__main__":
    main()
