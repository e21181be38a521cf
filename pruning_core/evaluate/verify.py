"""Opens a finished checkpoint in a fresh process with stock transformers: it answers as the model in memory did, and how fast.

Run as `python -m pruning_core.evaluate.verify FOLDER PROBE DEVICE [timed [DENSE [apart]]]`, this file is that process: it imports
nothing of ours that touches a model, so that what it does is what any user's machine does.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pruning_core.errors import GpuOutOfMemory, HostOutOfMemory, OutputDoesNotLoad
from pruning_core.evaluate import in_turn
from pruning_core.evaluate.throughput import (
    NEW_TOKENS,
    PROMPT_TOKENS,
    per_second,
    run_seconds,
    throughput,
)
from pruning_core.model import stock
from pruning_core.spec.report_parts.files import Verification
from pruning_core.spec.report_parts.speed import SpeedReport
from pruning_core.system import device as devices
from pruning_core.system import subprocesses

PROMPT = "The most important thing about language is"
PROBE_TOKENS = 48
SAMPLE_TOKENS = 24
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
COARSE_TOLERANCE = 2e-2
"""For 16-bit arithmetic: kernels may differ between a batch and a single window."""
CUT_TOLERANCE = 1e-3
"""For tensors that became smaller: sums run in another order, and a damaged model makes more of that."""
TOGETHER = 1.1
"""Room that a second model needs, over the bytes of its parameters."""
APART = "the two models do not fit into memory together, so the dense model was not timed"


def probe_tokens(vocab_size: int, max_positions: int) -> torch.Tensor:
    """Return ids spread over the vocabulary, int64 [1, seq]."""
    count = min(PROBE_TOKENS, max_positions, vocab_size)
    return torch.linspace(0, vocab_size - 1, count).long()[None]


@dataclass(frozen=True)
class Examined:
    """What the fresh process saw."""

    verification: Verification
    speed: SpeedReport | None


def check(
    folder: Path,
    probe: Path,
    tokens: torch.Tensor,
    logits: torch.Tensor,
    *,
    dense: Path | None = None,
    timed: bool = False,
    cut: bool = False,
    rescaled: bool = False,
    rounded: bool = False,
    device: torch.device,
    on_progress: subprocesses.ProgressCallback = lambda _done, _total, _unit, _share: None,
    alive: Callable[[], None] = lambda: None,
) -> Examined:
    """Return what stock transformers makes of the folder.

    Args:
        folder: The checkpoint.
        probe: Where to leave the expectations for the fresh process.
        tokens: int64 [1, seq].
        logits: What the pruned model in memory answers, [1, seq, vocabulary], in the dtype of its arithmetic.
        dense: The dense model's folder, where its speed shall be compared.
        timed: Measure tokens per second.
        cut: Tensors are smaller than those of the model in memory.
        rescaled: Norms were rescaled, and rounded to the stored dtype after that.
        rounded: Weights were rounded since: the difference is measured and not judged, but for what is no number.
        device: Where to load it.
        on_progress: Called with what the process tells of its progress.
        alive: Called every few seconds while it tells nothing.

    Raises:
        OutputDoesNotLoad: it does not load, not generate, or not answer the same.
    """
    save_file({"tokens": tokens.cpu(), "logits": logits.cpu().contiguous()}, probe)
    arguments = (str(folder), str(probe), str(device), "timed" if timed else "")
    answer = _asked(arguments, dense if timed else None, on_progress, alive)
    tolerance = _tolerance(logits.dtype, cut=cut, rescaled=rescaled, rounded=rounded)
    if not answer["max_logit_difference"] <= tolerance:
        raise OutputDoesNotLoad(
            f"reloaded logits differ by {answer['max_logit_difference']:.2e} (allowed: {tolerance:.0e})"
        )
    speed = answer.pop("speed")
    return Examined(Verification(**answer), speed and SpeedReport.model_validate(speed))


def _tolerance(dtype: torch.dtype, *, cut: bool, rescaled: bool, rounded: bool) -> float:
    """Return by how much logits may differ, as a share of the largest; see `check`."""
    if rounded:
        return sys.float_info.max
    if rescaled:
        return COARSE_TOLERANCE
    tolerance = TOLERANCE.get(dtype, COARSE_TOLERANCE)
    return max(tolerance, CUT_TOLERANCE) if cut else tolerance


def _asked(
    arguments: tuple[str, ...],
    dense: Path | None,
    on_progress: subprocesses.ProgressCallback,
    alive: Callable[[], None],
) -> dict[str, Any]:
    """Return what the fresh process says; where two models are too much for the machine, it takes them one by one."""
    compared = [str(dense)] if dense else []
    ask = functools.partial(
        subprocesses.run, __name__, *arguments, on_progress=on_progress, alive=alive
    )
    try:
        try:
            answer = ask(*compared)
        except (HostOutOfMemory, GpuOutOfMemory):
            if not compared:
                raise
            answer = ask(*compared, "apart")
    except subprocesses.HelperFailed as error:
        raise OutputDoesNotLoad(f"stock transformers cannot use the result: {error}") from None
    examined: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return examined


def _examine(
    folder: str, probe: str, device: str, measured: str, dense: str | None = None, apart: str = ""
) -> dict[str, Any]:
    import transformers

    subprocesses.report_loading()
    expected = load_file(probe)
    dtype = expected["logits"].dtype
    tokens = expected["tokens"].to(device)
    model = stock.load(folder, dtype, device)
    with torch.no_grad():
        logits = model(tokens).logits.cpu()
    scale = expected["logits"].abs().max().clamp_min(1e-30)
    difference = ((logits - expected["logits"]).abs().max() / scale).item()
    answer = {
        "loads_in": {"transformers": transformers.__version__},
        "max_logit_difference": difference,
        "sample": _sample(transformers, model, folder, tokens),
        "speed": None,
    }
    if measured:
        answer |= _speed(transformers, model, dense, tokens, apart=bool(apart))
    return answer


def _speed(
    transformers: Any, pruned: Any, dense: str | None, tokens: torch.Tensor, *, apart: bool
) -> dict[str, Any]:
    """Return tokens per second, of both models where there is a dense one, and what the dense one writes."""
    count = max(1, stock.room(pruned.config, 2 * NEW_TOKENS) // 2)
    prompt = _prompt(pruned.config, tokens, count)
    said: dict[str, Any] = {"prompt_tokens": prompt.shape[1], "new_tokens": count, "dense": None}
    if dense is None:
        return {"speed": said | {"pruned": throughput(pruned, prompt, new_tokens=count)}}
    dtype, device = pruned.dtype, tokens.device
    if apart or not _fits(transformers, dense, dtype, device):
        alone = throughput(pruned, prompt, new_tokens=count)
        said |= {"pruned": alone, "doubts": [APART]}
        pruned.to("meta")  # makes room for the other
        before = stock.load(dense, dtype, device)
    else:
        before = stock.load(dense, dtype, device)
        said |= _compared(before, pruned, prompt, count)
    return {"speed": said, "dense_sample": _sample(transformers, before, dense, tokens)}


def _fits(transformers: Any, folder: str, dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether a model finds room beside what is loaded already."""
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder)
        empty = transformers.AutoModelForCausalLM.from_config(config)
    size = sum(parameter.numel() for parameter in empty.parameters()) * dtype.itemsize
    return bool(TOGETHER * size < devices.free_memory(device))


def _compared(dense: Any, pruned: Any, prompt: torch.Tensor, count: int) -> dict[str, Any]:
    """Return tokens per second of both, timed in turn, and how far the comparison goes."""
    threads = torch.get_num_threads() if prompt.device.type == "cpu" else 1
    numbers = itertools.count(1)

    def run(model: Any) -> dict[str, float]:
        seconds = run_seconds(model, prompt, new_tokens=count)
        subprocesses.report_progress(next(numbers), 0, "timed run")
        return seconds

    runs = [functools.partial(run, model) for model in (dense, pruned)]
    compared = in_turn.compare(*runs, threads=threads, busy=in_turn.Load().busy)
    before, after = (per_second(seconds, prompt, new_tokens=count) for seconds in compared.seconds)
    ratios = {
        phase: {
            "value": ratio.value,
            "interval": ratio.interval and {"low": ratio.interval[0], "high": ratio.interval[1]},
        }
        for phase, ratio in compared.ratios.items()
    }
    said = {"rounds": compared.rounds, "busy_cores": compared.busy, "doubts": compared.doubts}
    return {"dense": before, "pruned": after, "ratios": ratios, **said}


def _prompt(config: Any, tokens: torch.Tensor, count: int) -> torch.Tensor:
    """Return as many of the probe's tokens, over and over, as leave room for `count` new ones."""
    length = max(1, stock.room(config, PROMPT_TOKENS + count) - count)
    return tokens.repeat(1, -(-length // tokens.shape[1]))[:, :length]


def _sample(transformers: Any, model: Any, folder: str, tokens: torch.Tensor) -> str:
    """Generate greedily: from a prompt where there is a tokenizer, else from the probe's first ids."""
    has_tokenizer = any(
        (Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json")
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder) if has_tokenizer else None
    prompt = tokens[:, :4] if tokenizer is None else _tokenised(tokenizer, model, tokens)
    count = min(SAMPLE_TOKENS, stock.room(model.config, 2 * SAMPLE_TOKENS) // 2)
    prompt = prompt[:, : max(1, stock.room(model.config, prompt.shape[1] + count) - count)]
    ids = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=max(1, count),
        do_sample=False,
        pad_token_id=0,
    )[0]
    text: str = tokenizer.decode(ids, skip_special_tokens=True) if tokenizer else str(ids.tolist())
    return text


def _tokenised(tokenizer: Any, model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the prompt's ids, or the probe's first where the model has no row for one of them."""
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"].to(tokens.device)
    sound = ids.numel() and int(ids.max()) < model.get_input_embeddings().weight.shape[0]
    return ids if sound else tokens[:, :4]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_examine(*sys.argv[1:])) + "\n")
