"""Stock transformers models opened to be measured: what their files say of decoding and of outputs does not count.

Imports nothing of ours, so that the process which verifies a result does what any user's machine does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

_OUTPUTS = {
    "return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_router_logits": False,
}
"""Of a forward pass; whatever its files say, a model is asked for logits alone."""


def load(folder: Path | str, dtype: torch.dtype | str, device: torch.device | str) -> Any:
    """Return a folder's model in evaluation mode, as `from_pretrained` opens it, with neutral settings."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    model.generation_config = _greedy(model)
    quieten(model.config)
    return model.eval().to(device)


def quieten(config: Any) -> None:
    """Let forward passes return logits in an object, and nothing that no caller here reads."""
    for name, value in _OUTPUTS.items():
        setattr(config, name, value)


def room(config: Any, wanted: int) -> int:
    """Return how many tokens a text may have: as many as are wanted, or as there are positions."""
    positions = getattr(config, "max_position_embeddings", None)
    return min(wanted, positions) if positions else wanted


def _greedy(model: Any) -> GenerationConfig:
    """Return the plainest decoding; of the model's own settings only the ids that end a text are left."""
    ends = model.generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    known = range(model.config.vocab_size)
    sound = [end for end in listed if type(end) is int and end in known]
    return GenerationConfig(eos_token_id=sound or None)  # type: ignore[no-untyped-call]
