"""What can be known of a checkpoint without torch: is it sound, safe and of a family that we can prune."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning_core.errors import ModelInvalid, UnsafePickle, UnsupportedModel
from pruning_core.intake import config as configs
from pruning_core.intake.headers import TensorFacts, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOAT_DTYPES = {"F64", "F32", "F16", "BF16"}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
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


def is_gguf(path: Path) -> bool:
    """Tell whether the path names a GGUF file, by suffix."""
    return path.suffix.lower() == ".gguf"


def check_gguf(path: Path) -> None:
    """Refuse a file that only calls itself GGUF; its tensors are checked when it is read.

    Raises:
        ModelInvalid: the magic bytes are missing.
    """
    if not path.is_file():
        raise ModelInvalid(f"{path.name} is called .gguf and is no file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelInvalid(f"{path.name} is no GGUF file: its first four bytes are not 'GGUF'")


def inspect(folder: Path) -> CheckpointFacts:
    """Return the facts of a Hugging Face folder.

    Args:
        folder: Folder with `config.json` and safetensors.

    Raises:
        ModelInvalid, UnsafePickle, UnsupportedModel: what is wrong, and how to mend it.
    """
    if not folder.is_dir():
        raise ModelInvalid(f"{folder.name} is neither a model folder nor a .gguf file")
    return facts_of(configs.read_config(folder), *_tensors(folder))


def facts_of(
    config: dict[str, Any], tensors: dict[str, TensorFacts], files: dict[str, str]
) -> CheckpointFacts:
    """Return the facts of a checkpoint of which configuration and headers are read.

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
    )


def has_tokenizer(folder: Path) -> bool:
    """Tell whether stock transformers finds a tokenizer in the folder without conversion."""
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()


def _tensors(folder: Path) -> tuple[dict[str, TensorFacts], dict[str, str]]:
    """Return facts and file of every tensor; with an index, of those that it assigns."""
    index = _index(folder)
    return assigned({name: read_header(folder / name) for name in shards(index)}, index)


def shards(index: dict[str, str] | None) -> list[str]:
    """Return the files that hold the tensors."""
    return [SINGLE] if index is None else sorted(set(index.values()))


def assigned(
    headers: Mapping[str, Mapping[str, TensorFacts]], index: dict[str, str] | None
) -> tuple[dict[str, TensorFacts], dict[str, str]]:
    """Return facts and file of every tensor; with an index, of those that it assigns.

    Args:
        headers: Tensors by name, by file.
        index: File of every tensor; None for a single file.

    Raises:
        ModelInvalid: a tensor is not where the index says.
    """
    tensors: dict[str, TensorFacts] = {}
    files: dict[str, str] = {}
    for name, header in headers.items():
        for tensor, facts in header.items():
            if index is None or index.get(tensor) == name:
                tensors[tensor], files[tensor] = facts, name
    missing = sorted(set(index or ()) - set(tensors))
    if missing:
        raise ModelInvalid(f"{INDEX} names {missing[0]!r}, which is not in the file that it names")
    return tensors, files


def _index(folder: Path) -> dict[str, str] | None:
    """Return the index of a sharded checkpoint, None for a single file.

    Raises:
        UnsafePickle, ModelInvalid: there are no safetensors.
    """
    if (folder / INDEX).is_file():
        index = parse_index((folder / INDEX).read_bytes())
        for file in shards(index):
            if not (folder / file).is_file():
                raise ModelInvalid(f"{INDEX} names {file}, which is missing")
        return index
    if (folder / SINGLE).is_file():
        return None
    if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
        raise UnsafePickle(
            f"{folder.name} holds pickled weights only, and a pickle can run any code.",
            suggestions=(
                "convert it to safetensors on a machine you trust: save_pretrained() writes them",
            ),
        )
    raise ModelInvalid(f"{folder.name} has no {SINGLE} and no {INDEX}")


def parse_index(raw: bytes) -> dict[str, str]:
    """Return the file of every tensor.

    Raises:
        ModelInvalid: it cannot be read, or names what is no safetensors file of the folder.
    """
    try:
        files = json.loads(raw)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelInvalid(f"{INDEX} has no readable weight_map") from None
    if not isinstance(files, dict) or not files:
        raise ModelInvalid(f"{INDEX} has no readable weight_map")
    for file in set(map(str, files.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ModelInvalid(
                f"{INDEX} names {file!r}, which is no safetensors file of the folder"
            )
    return files


def _check_against_config(config: dict[str, Any], tensors: dict[str, TensorFacts]) -> None:
    blocks = {int(match[1]) for name in tensors if (match := _BLOCK.search(name))}
    count = configs.block_count(config)
    if blocks != set(range(count)):
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
