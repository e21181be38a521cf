"""Tokens per second of a stock transformers model; imports nothing of ours, so that it measures what users get."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

PROMPT_TOKENS = 128
NEW_TOKENS = 16
REPEATS = 3


@torch.no_grad()
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
    prefill, decode = [], []
    for _ in range(repeats + 1):
        seconds, output = _timed(lambda: model(tokens, use_cache=True, logits_to_keep=1), tokens)
        prefill.append(tokens.shape[1] / seconds)
        seconds, _ = _timed(functools.partial(_decode, model, output, new_tokens), tokens)
        decode.append(new_tokens / seconds)
    return {"prefill": statistics.median(prefill[1:]), "decode": statistics.median(decode[1:])}


def _decode(model: Any, output: Any, new_tokens: int) -> None:
    for _ in range(new_tokens):
        following = output.logits[:, -1:].argmax(dim=-1)
        output = model(following, past_key_values=output.past_key_values, use_cache=True)


def _timed(call: Callable[[], Any], tokens: torch.Tensor) -> tuple[float, Any]:
    _wait(tokens.device)
    started = time.perf_counter()
    found = call()
    _wait(tokens.device)
    return time.perf_counter() - started, found


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
