"""Text sampled from the dense model itself: calibration without data (cf. Liu et al., arXiv 2305.17888, section 2.1).

Run as `python -m pruning_core.text.self_generated FOLDER OUT COUNT LENGTH SEED DEVICE`, this file is the process that
samples: it holds the whole model.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pruning_core.errors import ModelInvalid
from pruning_core.model import stock
from pruning_core.system import run_folder, subprocesses
from pruning_core.system.files import replacing

BATCH = 8


def sample(
    folder: Path,
    out: Path,
    count: int,
    length: int,
    seed: int,
    *,
    model_digest: str,
    device: torch.device,
    on_progress: subprocesses.ProgressCallback = lambda _done, _total, _unit, _share: None,
    alive: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Return int64 [count, length]; what an earlier attempt sampled is used again.

    Every sample begins with the tokenizer's first token, or with a random one where it has none, and goes on at
    temperature 1 without a bound on the choice. No sample ends early.

    Raises:
        HostOutOfMemory, GpuOutOfMemory: the whole model does not fit.
        ModelInvalid: stock transformers cannot sample from it.
    """
    asked = hashlib.sha256(json.dumps([model_digest, count, length, seed]).encode()).hexdigest()
    path = out / run_folder.SELF_GENERATED.format(digest=asked[:16])
    if not path.is_file():
        with replacing(path) as temporary:
            arguments = (folder, temporary, count, length, seed, device)
            try:
                subprocesses.run(
                    __name__, *map(str, arguments), on_progress=on_progress, alive=alive
                )
            except subprocesses.HelperFailed as error:
                raise ModelInvalid(f"no text can be sampled from the model: {error}") from None
    return load_file(path)["tokens"]


def _sample(folder: str, out: str, samples: str, tokens: str, seed: str, device: str) -> None:
    from pruning_core.tokenizers.load import beginning, load_tokenizer

    count, length = int(samples), int(tokens)
    begin = beginning(load_tokenizer(Path(folder)))
    subprocesses.report_loading()
    model = stock.load(folder, "auto", device)
    torch.manual_seed(int(seed))
    first = torch.randint(model.config.get_text_config().vocab_size, (count, 1))
    if begin is not None:
        first.fill_(begin)
    rows = [
        _continued(model, batch, length - 1, BATCH * length * number, count * length)
        for number, batch in enumerate(torch.split(first.to(device), BATCH))
    ]
    save_file({"tokens": torch.cat(rows)}, out)


def _continued(
    model: Any, batch: torch.Tensor, count: int, before: int, total: int
) -> torch.Tensor:
    """Return the batch with `count` tokens more; tell them beside those of the batches before."""

    def report(ids: torch.Tensor, _scores: Any, **_more: Any) -> torch.Tensor:
        subprocesses.report_progress(before + ids.numel(), total, "token")
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    ids: torch.Tensor = model.generate(
        batch,
        attention_mask=torch.ones_like(batch),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_new_tokens=count,
        max_new_tokens=count,
        pad_token_id=0,
        stopping_criteria=[report],
    )
    return ids.cpu()


if __name__ == "__main__":
    _sample(*sys.argv[1:])
