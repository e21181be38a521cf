"""The one place that talks to an accelerator."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil
import torch


def pick() -> torch.device:
    """Return the accelerator where there is one, else the CPU; float32 products keep all their bits."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def compute_dtype(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the dtype of forward passes: the stored one on an accelerator, float32 on a CPU."""
    return stored if device.type != "cpu" else torch.float32


def batch_tokens(device: torch.device) -> int:
    """Return how many tokens one forward pass takes: a CPU's caches want few, an accelerator's units many."""
    return 512 if device.type == "cpu" else 16384


def synchronize(device: torch.device) -> None:
    """Wait for queued work, so that a clock read afterwards is honest."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def free_memory(device: torch.device) -> int:
    """Return the bytes that may still be taken where a device's tensors lie."""
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    return int(torch.accelerator.get_memory_info(device)[0])


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return peak bytes: `host` (resident set of this process) and, on CUDA, `accelerator` (allocated)."""
    peaks = {"host": _peak_resident()}
    if device.type == "cuda":
        peaks["accelerator"] = torch.cuda.max_memory_allocated(device)
    return peaks


def _peak_resident() -> int:
    """Return the peak resident set of this very program; getrusage would count its parent's before exec too."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe(device: torch.device) -> str:
    """Return a name for the report."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {torch.get_num_threads()} threads"
