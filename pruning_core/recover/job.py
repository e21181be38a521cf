"""What the training process is asked for, and the files that parent and child leave for each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from pruning_core.spec.recovery import Recovery
from pruning_core.system import run_folder
from pruning_core.system.files import replacing

FOLDER = run_folder.RECOVERED
"""The trained model's folder."""
PROBE = run_folder.RECOVERED_PROBE
REPORT = run_folder.RECOVERED_REPORT
"""The last file that is written."""
STATE = run_folder.RECOVERY_STATE
JOB = run_folder.RECOVERY_JOB
TOKENS = run_folder.RECOVERY_TOKENS


class TrainingJob(BaseModel):
    """One training of a checkpoint.

    Attributes:
        checkpoint: The pruned model's folder.
        dense: The dense model's, the teacher where `params.distillation` asks for one.
        work: Folder for everything that is left on disk.
        device: Where to train.
        fingerprint: Of everything that decides the result.
        masked: Stored names of tensors whose zeros must stay zero. Where transformers fuses tensors (experts), zeros of
            the others in the same fused one stay as well.
        params: How to train.
    """

    checkpoint: Path
    dense: Path
    work: Path
    device: str
    fingerprint: str
    masked: list[str]
    params: Recovery


@dataclass(frozen=True)
class TrainingTokens:
    """The tokens of a training.

    Attributes:
        tokens: int64 [windows, seq], full windows without padding.
        validation: int64 [windows, seq], windows that are not among `tokens`.
        probe: int64 [1, seq], what the trained model answers at the end.
    """

    tokens: torch.Tensor
    validation: torch.Tensor
    probe: torch.Tensor

    @classmethod
    def load(cls, path: Path) -> TrainingTokens:
        """Read them from a file."""
        return cls(**load_file(path))

    def save(self, path: Path) -> None:
        """Write them to a file, in place of what another attempt may share."""
        rows = {name: windows.cpu().contiguous() for name, windows in vars(self).items()}
        with replacing(path) as temporary:
            save_file(rows, temporary)
