"""What other libraries take for the same work, each measured in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(".secateur") / "peers"
SCRIPT = Path(__file__).with_name("llmcompressor_peer.py")
# llmcompressor asks for ranges; pinned is what was measured.
REQUIREMENTS = (
    "llmcompressor==0.14.0.1",
    "torch==2.13.0",
    "transformers==5.17.0",
    "compressed-tensors==0.19.0",
    "datasets==5.2.0",
    "accelerate==1.15.0",
    "numpy==2.4.6",
)
SETTINGS = {
    "CUDA_VISIBLE_DEVICES": "",  # CPU seconds are compared
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "LLM_COMPRESSOR_LOG_LEVEL": "ERROR",  # it logs to stdout, and every layer as worse than a warning
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True)
class PeerResult:
    """What pruning cost and, in the same process, one plain forward pass of the same tokens."""

    cpu_seconds: float
    wall_seconds: float
    forward_cpu_seconds: float
    forward_wall_seconds: float
    peak_bytes: int  # resident set of the whole process


def environment() -> Path:
    """Return the Python that has llmcompressor; the first call installs it (minutes)."""
    folder = (PEERS / "llmcompressor").absolute()
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(REQUIREMENTS)
    if not installed.is_file() or installed.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *REQUIREMENTS], check=True)
        installed.write_text(wanted)
    return python


def measure(method: str, folder: Path, tokens_file: Path) -> PeerResult:
    """Prune with llmcompressor ("wanda" or "sparsegpt") in a fresh process.

    `tokens_file` is a .npy file of int64 [samples, seq]. Threads are as the caller's environment sets them:
    on a busy machine OMP_NUM_THREADS=1 is what compares, as threads that wait spin and count as CPU seconds.
    """
    done = subprocess.run(
        [str(environment()), str(SCRIPT), method, str(folder), str(tokens_file)],
        env={**os.environ, **SETTINGS},  # noqa: TID251 - the peer reads these, not the product
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"llmcompressor, {method}:\n{done.stderr[-4000:]}")
    return PeerResult(**json.loads(done.stdout.splitlines()[-1]))
