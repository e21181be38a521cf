"""Finished blocks on disk and the ledger that vouches for them: what makes a killed run resumable."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pruning_core.errors import ResumeMismatch
from pruning_core.model.streamed import StreamedModel
from pruning_core.prune.block_result import BlockResult
from pruning_core.spec.report_parts.removal import BlockReport
from pruning_core.system import run_folder
from pruning_core.system.files import replacing, sha256

ORDER_PREFIX = "channel_order."
"""Before the name of the tensor whose n:m groups are counted in another order than the stored one."""
UNITS_PREFIX = "dropped_units."
"""Before the name of a group of units: the numbers of those that go."""


class _LedgerFile(BaseModel):
    fingerprint: str
    blocks: list[BlockReport]


class Ledger:
    """The finished blocks of one work folder, in order from block 0.

    Args:
        folder: Work folder; made if absent.
        fingerprint: Of this run. Blocks of another run are never mixed in.

    Raises:
        ResumeMismatch: the folder belongs to another run.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._path = folder / run_folder.LEDGER
        self._folder = folder
        self._fingerprint = fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        self.blocks = self._sound_blocks()
        self.resumed = len(self.blocks)

    def __contains__(self, index: int) -> bool:
        return index < len(self.blocks)

    def path(self, index: int) -> Path:
        """Return where a block's tensors are, under the checkpoint's own names."""
        return self._folder / run_folder.BLOCK.format(index=index)

    def save(self, index: int, result: BlockResult, model: StreamedModel) -> None:
        """Write a block's changed tensors in the checkpoint's dtypes, and with them its channel orders and dropped units.

        Args:
            index: Which block.
            result: What became of it.
            model: The model that it belongs to.
        """
        tensors = {
            stored: weight.to("cpu", model.files.dtype(stored)).contiguous()
            for stored, weight in result.changed.items()
        }
        for stored, order in result.orders.items():
            tensors[ORDER_PREFIX + stored] = order.to("cpu", torch.int32).contiguous()
        for group, units in result.dropped.items():
            tensors[UNITS_PREFIX + group] = units.to("cpu", torch.int32).contiguous()
        with replacing(self.path(index)) as temporary:
            save_file(tensors, temporary)

    def record(self, index: int, result: BlockResult, seconds: float) -> BlockReport:
        """Vouch for a block that `save` wrote.

        Args:
            index: Which block.
            result: What became of it.
            seconds: Spent on it.
        """
        path = self.path(index)
        report = BlockReport(
            block=index,
            seconds=seconds,
            file=path.name,
            sha256=sha256(path),
            bytes=path.stat().st_size,
            matrices=tuple(result.matrices),
            reconstruction=result.reconstruction,
            units=tuple(result.units),
            warnings=tuple(result.warnings),
        )
        self.blocks.append(report)
        content = _LedgerFile(fingerprint=self._fingerprint, blocks=self.blocks)
        with replacing(self._path) as temporary:
            temporary.write_text(content.model_dump_json(), encoding="utf-8")
        return report

    def dropped(self) -> dict[tuple[int, str], torch.Tensor]:
        """Return the units that go, int64, by block and name of their group."""
        dropped = {}
        for report in self.blocks:
            with safe_open(self.path(report.block), framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    if name.startswith(UNITS_PREFIX):
                        group = name.removeprefix(UNITS_PREFIX)
                        dropped[report.block, group] = opened.get_tensor(name).long()
        return dropped

    def weights(self, index: int, model: StreamedModel) -> dict[str, torch.Tensor]:
        """Return a finished block's weights under the module's names: the pruned ones and the rest."""
        pruned = load_file(self.path(index), device=str(model.device))
        weights = model.dense(index)
        for name in weights:
            stored = model.files.stored_name(model.block_prefix(index) + name)
            if stored in pruned:
                weights[name] = pruned[stored].to(model.dtype)
        return weights

    def _sound_blocks(self) -> list[BlockReport]:
        """Return the blocks up to the first whose file is missing or damaged."""
        if not self._path.is_file():
            return []
        try:
            content = _LedgerFile.model_validate_json(self._path.read_bytes())
        except ValidationError:
            raise ResumeMismatch(
                f"{self._path} cannot be read: remove the folder to start again"
            ) from None
        if content.fingerprint != self._fingerprint:
            raise ResumeMismatch(
                f"{self._folder} holds blocks of another run (specification, model, data or versions differ): "
                "choose another folder, or remove this one to start again"
            )
        sound: list[BlockReport] = []
        for report in content.blocks:
            path = self.path(report.block)
            if report.block != len(sound) or not path.is_file() or sha256(path) != report.sha256:
                break
            sound.append(report)
        return sound
