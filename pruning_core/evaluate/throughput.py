"""Tokens per second of a stock transformers model; imports nothing of ours, so that it measures what users get."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

PROMPT_TOKENS = 128
NEW_TOKENS = 16
REPEATS = 3


def throughput(
    model: Any, tokens: torch.Tensor, *, new_tokens: int = NEW_TOKENS, repeats: int = REPEATS
) -> dict[str, float]:
    """Return `prefill` and `decode` tokens per second, the median of some runs after one that warms up.

    Args:
        model: A causal model.
        tokens: int64 [1, seq]: the prompt.
        new_tokens: How many are written after it.
        repeats: Runs that count.
    """
    runs = [run_seconds(model, tokens, new_tokens=new_tokens) for _ in range(repeats + 1)][1:]
    seconds = {phase: statistics.median(run[phase] for run in runs) for phase in runs[0]}
    return per_second(seconds, tokens, new_tokens=new_tokens)


def per_second(
    seconds: Mapping[str, float], tokens: torch.Tensor, *, new_tokens: int = NEW_TOKENS
) -> dict[str, float]:
    """Return tokens per second out of the seconds of each phase."""
    counts = {"prefill": tokens.shape[1], "decode": new_tokens}
    return {phase: count / seconds[phase] for phase, count in counts.items()}


@torch.no_grad()
def run_seconds(
    model: Any, tokens: torch.Tensor, *, new_tokens: int = NEW_TOKENS
) -> dict[str, float]:
    """Return the seconds of reading the prompt (`prefill`) and of writing after it (`decode`), once."""
    prefill, output = _timed(lambda: model(tokens, use_cache=True, logits_to_keep=1), tokens)
    decode, _ = _timed(functools.partial(_decode, model, output, new_tokens), tokens)
    return {"prefill": prefill, "decode": decode}


def _decode(model: Any, output: Any, new_tokens: int) -> None:
    for _ in range(new_tokens):
        following = output.logits[:, -1:].argmax(dim=-1)
        output = model(following, past_key_values=output.past_key_values, use_cache=True)


def _timed(call: Callable[[], Any], tokens: torch.Tensor) -> tuple[float, Any]:
    _wait(tokens.device)
    started = time.perf_counter()
    output = call()
    _wait(tokens.device)
    return time.perf_counter() - started, output


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
