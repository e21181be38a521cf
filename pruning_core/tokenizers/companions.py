"""The tokenizer of fewer tokens, and all that lies beside it, as the smaller model's folder has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pruning_core.checkpoints.companions import companions
from pruning_core.tokenizers.renumber import renumbered
from pruning_core.tokenizers.shrink import FILES, shrink


def write_companions(source: Path, folder: Path, stays: tuple[int, ...]) -> None:
    """Write the tokenizer of the tokens that stay and all that lies beside it.

    Args:
        source: Folder of the dense model.
        folder: Empty folder.
        stays: Token ids.

    Raises:
        ModelInvalid: something cannot be renumbered.
    """
    for name in companions(source):
        if name not in FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, folder / name)
    generation = folder / "generation_config.json"
    if generation.is_file():
        content = renumbered(json.loads(generation.read_bytes()), stays)
        generation.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shrink(source, folder, stays)
