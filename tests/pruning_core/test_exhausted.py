"""What a machine ran out of, in the words of whoever noticed."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from pruning_core.errors import DiskFull, GpuOutOfMemory, HostOutOfMemory, PruningError
from pruning_core.system.exhausted import told_by, told_in


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), GpuOutOfMemory),
        (MemoryError(), HostOutOfMemory),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 10 bytes"),
            HostOutOfMemory,
        ),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
        (OSError(errno.EDQUOT, "Quota"), DiskFull),
        (RuntimeError("I/O error: No space left on device (os error 28)"), DiskFull),
        (OSError(errno.ENOENT, "gone"), None),
        (ValueError("any"), None),
    ],
)
def test_what_an_error_says(error: Exception, expected: type[PruningError] | None) -> None:
    assert told_by(error) is expected


def test_numpy_has_an_error_of_its_own() -> None:
    with pytest.raises(MemoryError) as raised:
        np.empty(1 << 60, dtype=np.int8)
    assert told_by(raised.value) is HostOutOfMemory


def test_what_a_process_wrote_before_its_end() -> None:
    assert told_in("Traceback\ntorch.OutOfMemoryError: CUDA out of memory") is GpuOutOfMemory
    assert told_in("Traceback\nMemoryError") is HostOutOfMemory
    assert told_in("OSError: [Errno 28] No space left on device") is DiskFull
    assert told_in("Traceback\nValueError: any") is None
