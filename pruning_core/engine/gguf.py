"""GGUF to a Hugging Face folder with safetensors, once per file: the cache is keyed by the file's hash.

Run as `python -m pruning_core.engine.gguf FILE FOLDER`, this file converts in a process of its own: the
conversion holds the whole model, and its memory is given back before pruning starts.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from pruning_core.engine import helper
from pruning_core.engine.files import sha256
from pruning_core.errors import ModelInvalid
from pruning_core.intake.checkpoint import check_gguf


def convert(gguf: Path, cache_dir: Path) -> Path:
    """Return a folder with the float32 weights and the tokenizer of a GGUF file.

    Raises:
        ModelInvalid: transformers cannot read the file.
    """
    check_gguf(gguf)
    folder = cache_dir / "gguf" / sha256(gguf)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "model"
        try:
            helper.run(__name__, str(gguf), str(made))
        except helper.HelperFailed as error:
            raise ModelInvalid(f"{gguf.name} cannot be read as GGUF: {error}") from None
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another worker was first
                raise
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # transformers refuses to save a model that remembers its GGUF quantiser, although its weights are plain.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
