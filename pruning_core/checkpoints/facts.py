"""What can be known of a checkpoint without torch: is it sound, safe and of a family that we can prune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pruning_core.checkpoints import config as configs
from pruning_core.checkpoints.completeness import FLOAT_DTYPES, require_all, unwrap
from pruning_core.checkpoints.headers import TensorFacts, read_headers
from pruning_core.checkpoints.origin import Gguf, recorded
from pruning_core.checkpoints.weight_files import (
    CONFIG,
    MAX_INDEX_BYTES,
    Stored,
    chosen,
    is_index,
    merged,
    parse_index,
    require_config,
)
from pruning_core.errors import ModelInvalid
from pruning_core.families import family_of
from pruning_core.spec.output import RoundedDtype

GGUF_MAGIC = b"GGUF"
SAFETENSORS_NAMES: Mapping[RoundedDtype, str] = {"bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class CheckpointFacts:
    """Facts of one checkpoint.

    Attributes:
        parameters: As stock transformers counts them: no buffers, nothing that it leaves aside, a tied pair once.
        bytes: Of all tensors.
        tensors: What headers say of every tensor that the files hold.
        files: The file that holds a tensor.
        parameter_names: Those of the tensors that are parameters.
        wrapped: Names in the files that differ, by the names here.
    """

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
    parameter_names: frozenset[str]
    wrapped: Mapping[str, str]
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
            name: replace(tensor, dtype=SAFETENSORS_NAMES[dtype])
            if tensor.dtype in FLOAT_DTYPES
            else tensor
            for name, tensor in self.tensors.items()
        }


def is_gguf(path: Path) -> bool:
    """Tell whether the path is a GGUF file, by its first bytes, or is called one."""
    return path.suffix.lower() == ".gguf" or _starts_as_gguf(path)


def _starts_as_gguf(path: Path) -> bool:
    """Tell whether the path, with links followed, is a file that begins as GGUF does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC


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
    return facts_of(config, _tensors(folder, names, config), gguf=recorded(folder))


def facts_of(
    config: dict[str, Any], stored: Stored, *, gguf: Gguf | None = None
) -> CheckpointFacts:
    """Return the facts of a checkpoint of which configuration and headers are read.

    Args:
        config: Content of `config.json`.
        stored: Its tensors.
        gguf: The file that they are, or will be, made from.

    Raises:
        ModelInvalid, UnsupportedModel: they contradict each other, or the weights are no floats.
    """
    family, plain = family_of(config["model_type"]), unwrap(stored)
    tensors, files = dict(plain.stored.tensors), dict(plain.stored.files)
    names = require_all(family, config, plain.stored)
    return CheckpointFacts(
        model_type=config["model_type"],
        architecture=configs.architecture(config),
        parameters=sum(tensors[name].count for name in names),
        bytes=sum(tensor.bytes for tensor in tensors.values()),
        blocks=configs.block_count(config),
        max_positions=configs.max_positions(config),
        vocab_size=configs.vocabulary_size(config),
        config=config,
        tensors=tensors,
        files=files,
        parameter_names=names,
        wrapped=plain.wrapped,
        gguf=gguf,
    )


def _names(folder: Path) -> list[str]:
    """Return the files of a folder, and config.json of the folders in it."""
    inner = (path.relative_to(folder).as_posix() for path in folder.glob(f"*/{CONFIG}"))
    return [*inner, *(path.name for path in folder.iterdir() if path.is_file())]


def _tensors(folder: Path, names: Sequence[str], config: Mapping[str, Any]) -> Stored:
    """Return every tensor of the files that stock transformers reads."""
    first = chosen(folder.name, names, config)
    if not is_index(first):
        return merged(read_headers(folder, [first]))
    with (folder / first).open("rb") as file:
        index = parse_index(first, file.read(MAX_INDEX_BYTES + 1), names)
    return merged(read_headers(folder, index.shards), index)
