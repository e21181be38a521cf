"""The checkpoint folder: the source's tensors, byte for byte, with the pruned blocks in place of the dense ones, or cut."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from pruning_core.checkpoints.companions import companions
from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.checkpoints.headers import TensorFacts, format_header, read_header
from pruning_core.checkpoints.weight_files import CONFIG, EXPLICIT, INDEX, SINGLE
from pruning_core.export.cut import Cut
from pruning_core.model.tensors import DTYPES
from pruning_core.prune.ledger import ORDER_PREFIX, UNITS_PREFIX
from pruning_core.spec.report_parts.files import FileEntry
from pruning_core.system.files import flush, sha256, write_json
from pruning_core.system.progress import counting

CHANNEL_ORDER = "channel_order.safetensors"
"""int32 [in] per matrix: `weight[:, order]` is n:m. Written where the stored order is not."""
_MEDIA_TYPES = {
    ".json": "application/json",
    ".safetensors": "application/octet-stream",
    ".gguf": "application/octet-stream",
}
_COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class _Piece:
    """One tensor and the file that holds it."""

    name: str
    facts: TensorFacts
    file: Path
    cut: Cutting | None = None


@dataclass(frozen=True)
class Changes:
    """What removing units changes beside the tensors of the blocks.

    Attributes:
        cut: What becomes smaller.
        files: Safetensors files whose tensors replace those of the same name.
        companions: Folder of the tokenizer and its like; None for the source.
        config: Content of `config.json`; None for the source's.
        keeps_width: The residual stream is as wide as before.
    """

    cut: Cut | None = None
    keeps_width: bool = True
    files: tuple[Path, ...] = ()
    companions: Path | None = None
    config: dict[str, Any] | None = None


UNCHANGED = Changes()


@dataclass(frozen=True)
class Cutting:
    """What a tensor is made from, where it is not copied: its name in the file, and how."""

    stored: str
    apply: Callable[[torch.Tensor], torch.Tensor]


def write(
    source: Path,
    facts: CheckpointFacts,
    block_files: Iterable[Path],
    target: Path,
    *,
    shard_bytes: int,
    changes: Changes = UNCHANGED,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write a complete Hugging Face folder and return the bytes of its tensors.

    Args:
        source: The dense model's folder.
        facts: Of that folder.
        block_files: Safetensors files whose tensors replace those of the same name.
        target: Folder to make.
        shard_bytes: Largest weight file, unless one tensor is larger.
        changes: What becomes smaller.
        on_progress: Called with the bytes of tensors that are written, and how many there are to write.
    """
    pieces, orders = _pieces(source, facts, block_files)
    if changes.cut is not None:
        pieces = dict(_cut_pieces(pieces.values(), changes.cut))
    target.mkdir(parents=True)
    size = sum(piece.facts.bytes for piece in pieces.values())
    add = counting(lambda done: on_progress(done, size))
    if orders:
        _write_safetensors(target / CHANNEL_ORDER, orders, lambda _bytes: None)
    _write_shards(_shards(list(pieces.values()), shard_bytes), target, add)
    _write_companions(source if changes.companions is None else changes.companions, target, changes)
    config = facts.config if changes.config is None else changes.config
    own = {key: value for key, value in config.items() if key != EXPLICIT}  # names source files
    write_json(target / CONFIG, own)
    for path in target.rglob("*"):
        flush(path)
    flush(target)
    return size


def _pieces(
    source: Path, facts: CheckpointFacts, block_files: Iterable[Path]
) -> tuple[dict[str, _Piece], list[_Piece]]:
    """Return every tensor of the result by name, those of pruned blocks in place of the dense ones, and channel orders."""
    pieces = {
        name: _Piece(name, tensor, source / facts.files[name])
        for name, tensor in facts.tensors.items()
    }
    orders = []
    for path in block_files:
        for name, tensor in read_header(path).items():
            if name.startswith(ORDER_PREFIX):
                orders.append(_Piece(name.removeprefix(ORDER_PREFIX), tensor, path))
            elif not name.startswith(UNITS_PREFIX):
                pieces[name] = _Piece(name, tensor, path)
    return pieces, orders


def _write_companions(folder: Path, target: Path, changes: Changes) -> None:
    for name in companions(folder, embedder=changes.keeps_width):
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / name, target / name)


def manifest(
    folder: Path, on_bytes: Callable[[int], None] = lambda _bytes: None
) -> tuple[FileEntry, ...]:
    """Return every file of a folder with size and sha256; call `on_bytes` with the bytes of every piece that was read."""
    return tuple(
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            bytes=path.stat().st_size,
            sha256=sha256(path, on_bytes=on_bytes),
            media_type=_MEDIA_TYPES.get(path.suffix, "text/plain"),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


def _cut_pieces(pieces: Iterable[_Piece], cut: Cut) -> Iterator[tuple[str, _Piece]]:
    """Yield what is left of every tensor, by its new name."""
    for piece in pieces:
        smaller = cut.slices(
            piece.name, piece.facts.shape, DTYPES.get(piece.facts.dtype, torch.float32)
        )
        if smaller is None:
            continue
        facts = replace(piece.facts, shape=smaller.shape)
        cutting = None if smaller.apply is None else Cutting(piece.name, smaller.apply)
        yield smaller.name, _Piece(smaller.name, facts, piece.file, cutting)


def _shards(pieces: list[_Piece], limit: int) -> list[list[_Piece]]:
    shards: list[list[_Piece]] = [[]]
    size = 0
    for piece in pieces:
        if shards[-1] and size + piece.facts.bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(piece)
        size += piece.facts.bytes
    return shards


def _write_shards(
    shards: list[list[_Piece]], target: Path, on_bytes: Callable[[int], None]
) -> None:
    if len(shards) == 1:
        _write_safetensors(target / SINGLE, shards[0], on_bytes)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_safetensors(target / name, shard, on_bytes)
        weight_map |= {piece.name: name for piece in shard}
    total = sum(piece.facts.bytes for shard in shards for piece in shard)
    write_json(target / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_safetensors(path: Path, pieces: list[_Piece], on_bytes: Callable[[int], None]) -> None:
    """Copy tensors from file to file; no more than one buffer, or one tensor that is cut, is ever in memory."""
    with path.open("wb") as output:
        output.write(format_header({piece.name: piece.facts for piece in pieces}))
        for piece in pieces:
            if piece.cut is None:
                with piece.file.open("rb") as file:
                    file.seek(piece.facts.offset)
                    _copy(file, output, piece.facts.bytes, on_bytes)
            else:
                on_bytes(output.write(_made(piece, piece.cut)))


def _made(piece: _Piece, cut: Cutting) -> bytes:
    with safe_open(piece.file, framework="pt") as opened:
        tensor = cut.apply(opened.get_tensor(cut.stored))
    assert tensor.shape == piece.facts.shape, piece.name
    content: bytes = tensor.view(torch.uint8).numpy().tobytes()
    return content


def _copy(file: Any, output: Any, count: int, on_bytes: Callable[[int], None]) -> None:
    while count > 0:
        chunk = file.read(min(count, _COPY_BYTES))
        if not chunk:
            raise OSError(f"{file.name} became shorter while it was read")
        output.write(chunk)
        count -= len(chunk)
        on_bytes(len(chunk))
