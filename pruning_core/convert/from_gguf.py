"""GGUF to a Hugging Face folder with safetensors, once per file: the cache is keyed by the file's hash.

Every tensor is written as the file's decoded values, in float32, one at a time; what the file says and the checkpoint
cannot hold is refused (`gguf.file`). Run as `python -m pruning_core.convert.from_gguf FILE FOLDER`, this file converts in
a process of its own, whose memory is given back before pruning starts.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from pruning_core.checkpoints.headers import TensorFacts, format_header
from pruning_core.checkpoints.origin import record
from pruning_core.checkpoints.weight_files import SINGLE
from pruning_core.errors import ModelInvalid
from pruning_core.export import checkpoint
from pruning_core.gguf.file import GgufModel, Wanted, read_model
from pruning_core.spec.report_parts.files import FileEntry
from pruning_core.system import subprocesses
from pruning_core.system.files import locked, replacing, sha256, write_json
from pruning_core.system.progress import CountCallback, counting

VERSION = 4
"""Of what this module makes: folders of another one are not used."""
_LISTING = TypeAdapter(tuple[FileEntry, ...])
_ID_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def convert(
    gguf: Path,
    cache_dir: Path,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    alive: Callable[[], None] = lambda: None,
) -> Path:
    """Return a folder with the float32 weights and the tokenizer of a GGUF file, and of the parts beside it.

    Args:
        gguf: The file, or the first part.
        cache_dir: Where the folder is kept.
        on_progress: Called with the bytes that were read and written, and how many there are to read and write at most.
        alive: Called every few seconds while nothing is read or written.

    Raises:
        ModelInvalid: the file is broken, or parts, tensors or settings are missing.
        UnsupportedModel: it says what the checkpoint cannot.
    """
    model = read_model(gguf)
    parts, whole = model.parts, _bytes(model)
    total = 2 * sum(part.stat().st_size for part in parts) + 2 * whole
    add = counting(lambda done: on_progress(min(done, total), total))
    store = cache_dir / "gguf"
    store.mkdir(parents=True, exist_ok=True)
    known = store / _name([sha256(part, on_bytes=add) for part in parts])
    if _is_whole(known, add):
        return known
    with tempfile.TemporaryDirectory(dir=store) as temporary:
        own = Path(temporary)
        # What is converted under a digest are the bytes that it is of, whoever writes to the file meanwhile
        folder = store / _name([sha256(part, own / part.name, on_bytes=add) for part in parts])
        with locked(store / f"{folder.name}.lock"):
            if not _is_whole(folder, add):
                _make(own / gguf.name, own / "model", folder, add, alive)
    return folder


def _name(digests: list[str]) -> str:
    whole = hashlib.sha256("".join(digests).encode()).hexdigest()
    return f"v{VERSION}-{digests[0] if len(digests) == 1 else whole}"


def _bytes(model: GgufModel) -> int:
    """Return the bytes of the weights that are written."""
    return sum(4 * math.prod(tensor.shape) for tensor in model.wanted.values())


def _make(
    gguf: Path, made: Path, folder: Path, add: CountCallback, alive: Callable[[], None]
) -> None:
    written = 0

    def part_done(done: int, _total: int, unit: str, _share: float | None) -> None:
        nonlocal written
        if unit == "byte":
            add(done - written)
            written = done

    try:
        subprocesses.run(__name__, str(gguf), str(made), on_progress=part_done, alive=alive)
    except subprocesses.HelperFailed as error:
        raise ModelInvalid(f"{gguf.name} cannot be read as GGUF: {error}") from None
    shutil.rmtree(folder, ignore_errors=True)
    _listing(folder).unlink(missing_ok=True)
    made.rename(folder)
    with replacing(_listing(folder)) as temporary:
        temporary.write_bytes(_LISTING.dump_json(checkpoint.manifest(folder, add)))


def _is_whole(folder: Path, add: CountCallback) -> bool:
    """Tell whether a converted folder is as it was made: cut short, altered or of no listing, it is made again."""
    try:
        listed = _LISTING.validate_json(_listing(folder).read_bytes())
        return listed == checkpoint.manifest(folder, add)
    except (FileNotFoundError, ValidationError):
        return False


def _listing(folder: Path) -> Path:
    """Beside the folder, written last."""
    return folder.with_name(f"{folder.name}.json")


def write_folder(gguf: Path, folder: Path) -> None:
    """Write the folder, in this process."""
    model = read_model(gguf)
    folder.mkdir()
    write_json(folder / "config.json", model.config)
    ids = {key: model.config[key] for key in _ID_KEYS if model.config[key] is not None}
    write_json(folder / "generation_config.json", {"_from_model_config": True, **ids})
    record(folder, model.origin)
    _write_weights(folder / SINGLE, model)
    _check_names(folder)
    if model.has_tokenizer:
        _write_tokenizer(gguf, folder)


def _write_weights(path: Path, model: GgufModel) -> None:
    facts = {name: TensorFacts("F32", tensor.shape, 0) for name, tensor in model.wanted.items()}
    with path.open("wb") as output:
        output.write(format_header(facts))
        add = counting(lambda done: subprocesses.report_progress(done, _bytes(model), "byte"))
        for tensor in model.wanted.values():
            add(output.write(np.ascontiguousarray(values(tensor, model.config)).data))


def values(wanted: Wanted, config: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Return one tensor of the checkpoint, float32."""
    from gguf import GGMLQuantizationType, dequantize

    stored, how = wanted.stored, wanted.how.change
    kind = GGMLQuantizationType[stored.kind]
    rows = stored.shape if wanted.expert is None else stored.shape[1:]
    size = stored.bytes if wanted.expert is None else stored.bytes // stored.shape[0]
    offset = stored.offset + size * (wanted.expert or 0)
    raw = np.fromfile(stored.file, np.uint8, size, offset=offset)
    plain = {"F32": np.float32, "F16": np.float16}.get(stored.kind)
    bytes_shape = (-1, size // int(np.prod(rows[:-1], dtype=np.int64)))
    array = dequantize(raw.view(plain) if plain else raw.reshape(bytes_shape), kind)
    tensor: npt.NDArray[np.float32] = array.reshape(rows).astype(np.float32, copy=False)
    if how == "plus_one":
        return tensor - np.float32(1)
    if how == "transposed":
        return tensor.T
    if how in ("query_rows", "key_rows"):
        key = "num_attention_heads" if how == "query_rows" else "num_key_value_heads"
        return _halves(tensor, int(config[key]))
    return tensor


def _halves(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undo the interleaving of each head's two halves: [2 i, 2 i + 1] of the file are [i, i + half] of the checkpoint."""
    half = weight.shape[0] // heads // 2
    paired = weight.reshape(heads, half, 2, *weight.shape[1:])
    return paired.swapaxes(1, 2).reshape(weight.shape)


def _check_names(folder: Path) -> None:
    """Refuse what stock transformers would fill at random or leave out; no weight is read for that."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, device_map="meta", output_loading_info=True
    )
    info = loaded[1]
    odd = {kind: names for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if (names := info[kind])}  # fmt: skip
    if odd:
        raise ValueError(f"stock transformers does not take its tensors: {odd}")


def _write_tokenizer(gguf: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


if __name__ == "__main__":
    write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
