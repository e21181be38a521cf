"""What multiple choice costs, ours beside lm-evaluation-harness: one process, the same requests, threads and dtype.

Both are loaded before the clock starts, and both tokenise and score while it runs; ours reads its blocks from the file
meanwhile, as it does in a job. The harness runs at the batch size that costs it least on the first items. The items are
those of `arc_easy` in the folder that SECATEUR_TASKS_DIR names. CPU seconds decide.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from bench.model import smollm2
from bench.page import RESULTS, write
from pruning_core import settings
from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.readings import Question, questions
from pruning_core.datasets.tasks import find, load
from pruning_core.evaluate.multiple_choice import score
from pruning_core.model.streamed import StreamedModel
from pruning_core.system import device as devices
from pruning_core.text.question_tokens import encode

TASK = "arc_easy"
BATCHES = (1, 2, 4, 8, 16)
TRIED_ITEMS = 50
Scores = list[list[float]]
CLOCKS = ("cpu", "wall")
Clock = tuple[float, float]


def timed(action: Callable[[], Scores]) -> tuple[Clock, Scores]:
    """Return CPU (all threads) and wall seconds of a call, and what it returned."""
    cpu, wall = time.process_time(), time.perf_counter()
    scores = action()
    return (time.process_time() - cpu, time.perf_counter() - wall), scores


class Ours:
    """The scorer that jobs use."""

    def __init__(self, folder: Path) -> None:
        self.model = StreamedModel(folder, inspect(folder), devices.pick())
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def __call__(self, asked: list[Question]) -> Scores:
        limit = self.model.config.max_position_embeddings
        return score(self.model, encode(self.tokenizer, asked, limit))


class Theirs:
    """lm-evaluation-harness's model of stock transformers."""

    def __init__(self, folder: Path) -> None:
        from lm_eval.models.huggingface import HFLM

        device = devices.pick()
        dtype = "float32" if device.type == "cpu" else "auto"
        self.model: Any = HFLM(pretrained=str(folder), dtype=dtype, device=str(device))

    def __call__(self, asked: list[Question], batch: int) -> Scores:
        from lm_eval.api.instance import Instance

        self.model.batch_size_per_gpu = batch
        requests = [
            Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index)
            for index, question in enumerate(asked)
            for pair in zip(question.prompts, question.continuations, strict=True)
        ]
        likelihoods = iter(self.model.loglikelihood(requests, disable_tqdm=True))
        return [[next(likelihoods)[0] for _ in question.prompts] for question in asked]


@torch.no_grad()
def compare(folder: Path, asked: list[Question], rounds: int) -> dict[str, Any]:
    """Measure both in turn."""
    ours, theirs = Ours(folder), Theirs(folder)
    tried = {
        size: timed(lambda size=size: theirs(asked[:TRIED_ITEMS], size))[0][0] for size in BATCHES
    }
    print({size: round(seconds, 2) for size, seconds in tried.items()}, flush=True)
    batch = min(tried, key=lambda size: tried[size])
    clocks: dict[str, list[Clock]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        mine, my_scores = timed(lambda: ours(asked))
        other, their_scores = timed(lambda: theirs(asked, batch))
        clocks["ours"].append(mine)
        clocks["theirs"].append(other)
        print(mine, other, flush=True)
    pairs = zip(*map(chain.from_iterable, (my_scores, their_scores)), strict=True)
    return {
        "items": len(asked),
        "threads": torch.get_num_threads(),
        "device": devices.describe(devices.pick()),
        "rounds": rounds,
        "batch": batch,
        "largest_difference": max(abs(our_score - their_score) for our_score, their_score in pairs),
        **{
            name: {
                clock: _median(reading[at] for reading in readings)
                for at, clock in enumerate(CLOCKS)
            }
            for name, readings in clocks.items()
        },
        "ratio": _median(
            other[0] / mine[0] for mine, other in zip(clocks["ours"], clocks["theirs"], strict=True)
        ),
    }


def _median(figures: Iterable[float]) -> float:
    return round(statistics.median(figures), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    folder = smollm2().resolve()
    asked = questions(load(find(TASK, settings.tasks_dir()), "eval", cache_dir=None))
    comparison = compare(folder, asked[: chosen.items], chosen.rounds)
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    results["evaluation"] = {TASK: comparison}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write()
    print(f"lm_eval over Secateur, CPU seconds: {comparison['ratio']}")


if __name__ == "__main__":
    main()
