"""Which files of a folder or repository are the model: those that stock transformers opens, chosen in its order.

1. what `transformers_weights` of config.json names, 2. model.safetensors, 3. model.safetensors.index.json with every
file that it names. Shards are read whole, in the order of their names; of a tensor that occurs twice the last one
counts. Nothing else is read: no variants (model.fp16.safetensors), no consolidated.safetensors, no subfolder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pruning_core.checkpoints.bounded_json import parse
from pruning_core.checkpoints.headers import MAX_HEADER_BYTES, MAX_TENSORS, TensorFacts
from pruning_core.errors import ModelInvalid, UnsafePickle

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
EXPLICIT = "transformers_weights"
"""Key of config.json."""
ADAPTER = "adapter_config.json"
MAX_INDEX_BYTES = MAX_HEADER_BYTES
MAX_SHARDS = 1_000
_MARKS = 8 * MAX_TENSORS
_INDEX_END = ".safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_VARIANT = re.compile(
    r"model\.([\w-]+)(?:-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.([\w-]+)\.json"
)


@dataclass(frozen=True)
class Index:
    """The file of every tensor, as an index gives it.

    Attributes:
        name: Of the index.
        files: File by tensor.
    """

    name: str
    files: Mapping[str, str]

    @property
    def shards(self) -> list[str]:
        """Every file that it names, in the order in which they are read."""
        return sorted(set(self.files.values()))


@dataclass(frozen=True)
class Stored:
    """The tensors of a checkpoint.

    Attributes:
        tensors: What headers say, by name.
        files: The file that holds a tensor.
        promised: The file that should, by the index; empty without one.
    """

    tensors: Mapping[str, TensorFacts]
    files: Mapping[str, str]
    promised: Mapping[str, str]


def is_index(name: str) -> bool:
    """Tell whether a file that was chosen lists the files that hold the tensors."""
    return name.endswith(_INDEX_END)


def chosen(model: str, names: Collection[str], config: Mapping[str, Any]) -> str:
    """Return the file that stock transformers opens first: one with all tensors, or an index.

    Args:
        model: What to call the model in messages.
        names: The files that lie beside config.json.
        config: Its content.

    Raises:
        UnsafePickle, ModelInvalid: it opens none, or more than the model.
    """
    _refuse_additions(model, names)
    explicit = config.get(EXPLICIT)
    if explicit is not None:
        return _explicit(explicit, names)
    for name in (SINGLE, INDEX):
        if name in names:
            return name
    _refuse_without(model, names)


def require_config(model: str, names: Collection[str]) -> None:
    """Refuse a folder without config.json, and say what it is instead.

    Raises:
        ModelInvalid, UnsafePickle: there is none.
    """
    if CONFIG in names:
        return
    if ADAPTER in names:
        raise ModelInvalid(
            f"{model} is no whole model. Adapter weights ({ADAPTER}) are all that it holds.",
            suggestions=(
                "merge it first into its model: load both with peft, call merge_and_unload() and save_pretrained()",
            ),
        )
    if "params.json" in names:
        raise ModelInvalid(
            f"{model} holds a model in its makers' own format (params.json), which stock transformers does not open.",
            suggestions=(
                "use its conversion to the Hugging Face format: a folder with config.json",
            ),
        )
    if not any(name.endswith(".safetensors") for name in names):
        _refuse_pickles(model, names)
    inner = sorted(name for name in names if name.endswith(f"/{CONFIG}"))
    raise ModelInvalid(
        f"{model} has no {CONFIG}: it is no Hugging Face model folder",
        suggestions=(f"the folder {inner[0].rpartition('/')[0]} has one: name that",)
        if inner
        else (),
    )


def parse_index(name: str, raw: bytes, names: Collection[str]) -> Index:
    """Return the content of an index.

    Args:
        name: Of the index.
        raw: Its content.
        names: The files that lie beside it.

    Raises:
        ModelInvalid: it cannot be read, or names what is no safetensors file beside it.
    """
    if len(raw) > MAX_INDEX_BYTES:
        raise ModelInvalid(f"{name} is larger than {MAX_INDEX_BYTES} bytes")
    content = parse(name, raw, marks=_MARKS)
    files = content.get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ModelInvalid(f"{name} has no readable weight_map")
    if not isinstance(content.get("metadata"), dict):
        raise ModelInvalid(
            f"{name} has no `metadata`, without which stock transformers does not open it",
            suggestions=('add `"metadata": {}` to it',),
        )
    for file in files.values():
        if not isinstance(file, str) or "/" in file or not file.endswith(".safetensors"):
            raise ModelInvalid(f"{name} names {file!r}, which is no safetensors file of the folder")
    index = Index(name, files)
    if len(index.shards) > MAX_SHARDS:
        raise ModelInvalid(f"{name} names {len(index.shards)} files; {MAX_SHARDS} are allowed")
    for file in index.shards:
        if file not in names:
            raise ModelInvalid(f"{name} names {file}, which is missing")
    return index


def merged(headers: Mapping[str, Mapping[str, TensorFacts]], index: Index | None = None) -> Stored:
    """Return what the files hold.

    Args:
        headers: Tensors by name, by file, in the order in which the files are read.
        index: That names the files; None for a single one.
    """
    tensors: dict[str, TensorFacts] = {}
    files: dict[str, str] = {}
    for file, header in headers.items():
        tensors |= header
        files |= dict.fromkeys(header, file)
    return Stored(tensors, files, index.files if index else {})


def _refuse_additions(model: str, names: Collection[str]) -> None:
    """Refuse files that stock transformers reads before, or on top of, the model's weights."""
    if ADAPTER in names:
        raise ModelInvalid(
            f"{model} holds an adapter ({ADAPTER}), which stock transformers adds to the weights wherever peft is "
            "installed, and leaves out elsewhere.",
            suggestions=(
                "merge it: load it with peft, call merge_and_unload() and save_pretrained()",
                f"remove {ADAPTER} to prune the weights without it",
            ),
        )
    if any(map(_DISTRIBUTED.fullmatch, names)):
        raise ModelInvalid(
            f"{model} is a distributed checkpoint (shard-*-model-*.safetensors).",
            suggestions=("load it with stock transformers and save it with save_pretrained()",),
        )


def _refuse_pickles(model: str, names: Collection[str]) -> None:
    if any(name.endswith(PICKLES) for name in names):
        raise UnsafePickle(
            f"{model} holds pickled weights only, and a pickle can run any code.",
            suggestions=(
                "convert it to safetensors on a machine you trust: save_pretrained() writes them",
                "of a hub model, ask for a revision with safetensors (often offered as a pull request)",
            ),
        )


def _explicit(name: Any, names: Collection[str]) -> str:
    if not isinstance(name, str) or not name.endswith((".safetensors", _INDEX_END)):
        raise ModelInvalid(
            f"{CONFIG}: {EXPLICIT} is {name!r}, which names no safetensors file and no index of them"
        )
    if name not in names:
        raise ModelInvalid(f"{CONFIG}: {EXPLICIT} names {name}, which does not lie beside it")
    return name


def _refuse_without(model: str, names: Collection[str]) -> NoReturn:
    """Say what is there instead of a model's weights."""
    _refuse_pickles(model, names)
    variants = sorted({v[1] or v[2] for v in map(_VARIANT.fullmatch, names) if v})
    if variants:
        raise ModelInvalid(
            f"{model} holds its weights as the variant {variants[0]!r} alone, which stock transformers opens only "
            "where it is asked for.",
            suggestions=(
                f"load it with variant={variants[0]!r} and save it with save_pretrained()",
            ),
        )
    others = sorted(name for name in names if name.endswith(".safetensors"))
    beside = f"; {others[0]} is not read by stock transformers" if others else ""
    raise ModelInvalid(f"{model} has no {SINGLE} and no {INDEX}{beside}")
