"""What can be known of a checkpoint without torch: is it sound, safe and of a family that we can prune."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pruning_core.errors import ModelInvalid, UnsupportedModel
from pruning_core.intake import config as configs
from pruning_core.intake.gguf_header import starts_as_gguf
from pruning_core.intake.headers import TensorFacts, read_headers
from pruning_core.intake.origin import Gguf, recorded
from pruning_core.intake.weights import (
    CONFIG,
    MAX_INDEX_BYTES,
    chosen,
    is_index,
    merged,
    parse_index,
    require_config,
)
from pruning_core.spec.output import RoundedDtype

FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
SAFETENSORS_NAMES: Mapping[RoundedDtype, str] = {"bfloat16": "BF16", "float16": "F16"}
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h)\.(\d{1,5})\.")


@dataclass(frozen=True)
class CheckpointFacts:
    """Facts of one checkpoint; `files` maps each tensor to the file that holds it (empty for GGUF)."""

    model_type: str
    architecture: str
    parameters: int
    bytes: int
    blocks: int
    max_positions: int
    vocab_size: int
    config: dict[str, Any]
    tensors: dict[str, TensorFacts]
    files: dict[str, str]
    gguf: Gguf | None = None
    """The file that the user gave, where it was GGUF."""

    @property
    def given_bytes(self) -> int:
        """Bytes of what the user gave."""
        return self.bytes if self.gguf is None else self.gguf.bytes

    def written(self, dtype: RoundedDtype | None) -> dict[str, TensorFacts]:
        """Return the tensors with all weights in this type; None for the types that they have."""
        if dtype is None:
            return self.tensors
        return {
            name: replace(one, dtype=SAFETENSORS_NAMES[dtype]) if one.dtype in FLOAT_DTYPES else one
            for name, one in self.tensors.items()
        }


def is_gguf(path: Path) -> bool:
    """Tell whether the path is a GGUF file, by its first bytes, or is called one."""
    return path.suffix.lower() == ".gguf" or starts_as_gguf(path)


def inspect(folder: Path) -> CheckpointFacts:
    """Return the facts of a Hugging Face folder.

    Args:
        folder: Folder with `config.json` and safetensors.

    Raises:
        ModelInvalid, UnsafePickle, UnsupportedModel: what is wrong, and how to mend it.
    """
    if not folder.is_dir():
        raise ModelInvalid(f"{folder.name} is neither a model folder nor a .gguf file")
    names = _names(folder)
    require_config(folder.name, names)
    config = configs.read_config(folder)
    return facts_of(config, *_tensors(folder, names, config), gguf=recorded(folder))


def facts_of(
    config: dict[str, Any],
    tensors: dict[str, TensorFacts],
    files: dict[str, str],
    *,
    gguf: Gguf | None = None,
) -> CheckpointFacts:
    """Return the facts of a checkpoint of which configuration and headers are read.

    Args:
        config: Content of `config.json`.
        tensors: By name.
        files: The file of each.
        gguf: The file that they are, or will be, made from.

    Raises:
        ModelInvalid, UnsupportedModel: they contradict each other, or the weights are no floats.
    """
    _check_against_config(config, tensors)
    return CheckpointFacts(
        model_type=config["model_type"],
        architecture=configs.architecture(config),
        parameters=sum(tensor.count for tensor in tensors.values()),
        bytes=sum(tensor.bytes for tensor in tensors.values()),
        blocks=configs.block_count(config),
        max_positions=configs.max_positions(config),
        vocab_size=configs.vocabulary_size(config),
        config=config,
        tensors=tensors,
        files=files,
        gguf=gguf,
    )


def _names(folder: Path) -> list[str]:
    """Return the files of a folder, and config.json of the folders in it."""
    inner = (path.relative_to(folder).as_posix() for path in folder.glob(f"*/{CONFIG}"))
    return [*inner, *(path.name for path in folder.iterdir() if path.is_file())]


def _tensors(
    folder: Path, names: Sequence[str], config: Mapping[str, Any]
) -> tuple[dict[str, TensorFacts], dict[str, str]]:
    """Return facts and file of every tensor that stock transformers reads."""
    first = chosen(folder.name, names, config)
    if not is_index(first):
        return merged(read_headers(folder, [first]))
    with (folder / first).open("rb") as file:
        index = parse_index(first, file.read(MAX_INDEX_BYTES + 1), names)
    return merged(read_headers(folder, index.shards))


def _check_against_config(config: dict[str, Any], tensors: dict[str, TensorFacts]) -> None:
    blocks = {int(match[1]) for name in tensors if (match := _BLOCK.search(name))}
    count = configs.block_count(config)
    if not blocks.issuperset(range(count)):
        raise ModelInvalid(f"config.json promises {count} blocks, the files hold {len(blocks)}")
    embedding = (configs.vocabulary_size(config), configs.embedding_width(config))
    if not any(tensor.shape == embedding for tensor in tensors.values()):
        raise ModelInvalid(
            f"config.json promises an embedding of shape {list(embedding)}; the files hold none"
        )
    odd = sorted(
        {tensor.dtype for name, tensor in tensors.items() if name.endswith(".weight")}
        - FLOAT_DTYPES
    )
    if odd:
        raise UnsupportedModel(
            f"Weights of type {', '.join(odd)} are not supported; convert them to BF16 or F32."
        )
