"""What one method costs, in a fresh process: prints one line of JSON.

A plain forward pass of the same tokens through the blocks is timed in the same process, a window at a time, as the
peers' scripts time theirs. Peak memory is read before the stock model for that pass is loaded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.model.hidden_states import Activations
from pruning_core.model.streamed import StreamedModel
from pruning_core.plans.element import ElementPlan
from pruning_core.prune.elements import element_walk
from pruning_core.prune.ledger import Ledger
from pruning_core.spec.prune import PruneSpec
from pruning_core.system import device as devices

ROUNDS = 3


def seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Return CPU (all threads) and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def prune(folder: Path, spec: PruneSpec, tokens: torch.Tensor) -> None:
    """Prune every block as a job does: streamed in, recorded, pruned, stored, propagated."""
    work = Path(tempfile.mkdtemp())
    model = StreamedModel(folder, inspect(folder), devices.pick())
    states = Activations(model, tokens) if spec.needs_calibration else None
    probe = Activations(model, tokens[:1, :8])
    walk = element_walk(model, ElementPlan.of(spec), Ledger(work, "bench"), states, probe)
    walk.run(lambda _index, _report: None)
    devices.synchronize(model.device)
    shutil.rmtree(work)


def forward(body: Any, tokens: torch.Tensor) -> None:
    """Run one plain forward pass."""
    for batch in tokens.split(max(1, devices.batch_tokens(body.device) // tokens.shape[1])):
        body(input_ids=batch.to(body.device), use_cache=False)
    devices.synchronize(body.device)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", help="JSON")
    parser.add_argument("folder", type=Path)
    parser.add_argument("tokens", type=Path, help=".npy of int64 [windows, seq]")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    spec = PruneSpec.model_validate_json(chosen.spec)
    tokens = torch.from_numpy(np.load(chosen.tokens)).long()
    idle = devices.peak_memory(devices.pick())
    prunes = [seconds(lambda: prune(chosen.folder, spec, tokens))]
    peak = devices.peak_memory(devices.pick())
    stock: Any = AutoModelForCausalLM.from_pretrained(chosen.folder).eval().to(devices.pick())
    forward(stock.base_model, tokens[:2])
    passes = [seconds(lambda: forward(stock.base_model, tokens))]
    for _ in range(chosen.rounds - 1):
        prunes.append(seconds(lambda: prune(chosen.folder, spec, tokens)))
        passes.append(seconds(lambda: forward(stock.base_model, tokens)))
    print(json.dumps({"prune": prunes, "forward": passes, "peak": peak, "idle": idle}))


if __name__ == "__main__":
    main()
