"""A text that a smaller vocabulary spells with more tokens than the model takes at once: its rows, and what they add up to."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from scipy.stats import ttest_1samp

from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.data_used import DataUsed
from pruning_core.evaluate.compare_texts import perplexities
from pruning_core.evaluate.evaluation_set import EvaluationSet
from pruning_core.evaluate.intervals import FEWEST_UNITS
from pruning_core.evaluate.measure import Measured
from pruning_core.text.evaluation_text import same_texts
from pruning_core.text.task_reader import TaskReader
from pruning_core.text.windows import Windows
from pruning_core.tokenizers.load import beginning, load_tokenizer
from tests import tiny
from tests.tiny import begin_texts

LIMIT = 8
FIRST = 259
"""Id of the first word: after all bytes."""
PAIRS = tuple(number for number in range(30) for _ in range(2))
WORDS = ("abcdefghijkl", "mnopqrstuvwx", "yz")


def folders(tmp_path: Path, *, begins: bool) -> tuple[Path, Path]:
    """Return a model with tokens for whole words, and one with bytes alone that takes 8 tokens at once."""
    dense = tiny.save(tmp_path / "dense", "llama")
    pruned = tiny.save(tmp_path / "pruned", "llama", max_position_embeddings=LIMIT)
    content = json.loads((dense / "tokenizer.json").read_text())
    content["added_tokens"] += [
        content["added_tokens"][0] | {"id": FIRST + number, "content": word, "special": False}
        for number, word in enumerate(WORDS)
    ]
    (dense / "tokenizer.json").write_text(json.dumps(content))
    if begins:
        begin_texts(dense)
        begin_texts(pruned)
    return dense, pruned


def again(tmp_path: Path, windows: list[list[int]], *, begins: bool) -> tuple[Windows, Windows]:
    """Return windows as the dense model's tokenizer reads them, and the same read again."""
    dense, pruned = folders(tmp_path, begins=begins)
    before = load_tokenizer(dense)
    given = Windows((torch.tensor(windows),), {"texts": len(windows)})
    return given, same_texts(TaskReader(pruned, inspect(pruned), DataUsed(tmp_path)), given, before)


def spelled(rows: Sequence[Sequence[int]]) -> list[str]:
    return [tiny.tokenizer().decode(row) for row in rows]


def rows_of(windows: Windows) -> list[list[int]]:
    return [row.tolist() for group in windows.groups for row in group]


@pytest.mark.parametrize("begins", [False, True])
def test_rows_keep_to_the_limit_and_every_token_is_predicted_once(
    begins: bool, tmp_path: Path
) -> None:
    texts = ["abcdefghijklmnopqrstuvwx", "yzmnopqrstuvwx", "yzyz"]
    lead = [1] if begins else []
    given = [
        [*lead, FIRST, FIRST + 1],
        [*lead, FIRST + 2, FIRST + 1],
        [*lead, FIRST + 2, FIRST + 2],
    ]
    _, other = again(tmp_path, given, begins=begins)
    rows = rows_of(other)
    assert beginning(load_tokenizer(tmp_path / "pruned")) == (1 if begins else None)
    assert max(map(len, rows)) == LIMIT
    assert min(map(len, rows)) > 1
    for number, text in enumerate(texts):
        mine = [row for row, owner in zip(rows, other.owners, strict=True) if owner == number]
        predicted = "".join(spelled([row[1:] for row in mine]))
        assert predicted == (text if begins else text[1:])
        if begins:
            assert {row[0] for row in mine} == {1}
        else:  # a further row goes on from the last token of the one before
            assert [row[0] for row in mine[1:]] == [row[-1] for row in mine[:-1]]
    assert list(other.owners) == sorted(other.owners)


def test_rows_of_one_text_are_one_unit(tmp_path: Path) -> None:
    windows, other = again(
        tmp_path, [[FIRST, FIRST + 1], [FIRST + 2, FIRST + 1], [FIRST + 2, FIRST + 2]], begins=False
    )
    sums = torch.tensor([23 * 0.5, 13 * 0.25, 3 * 1.0]).double()
    before = [torch.full((1,), 2.0).double() for _ in range(3)]
    each = (0.5, 0.25, 1.0)
    after = [
        torch.full((len(row) - 1,), each[owner]).double()
        for row, owner in zip(rows_of(other), other.owners, strict=True)
    ]
    assert len(after) > 3
    (found,) = perplexities(
        EvaluationSet({"texts": windows}, {}),
        Measured({"texts": before}, {}),
        Measured({"texts": after}, {}),
        EvaluationSet({"texts": other}, {}),
    )
    assert (found.windows, found.units, found.tokens) == (3, 3, 3)
    assert found.pruned == pytest.approx(math.exp(float(sums.mean())))
    assert found.ratio == pytest.approx(math.exp(float(sums.mean()) - 2))
    assert found.ratio_interval is None


def test_windows_that_are_read_again_count_to_the_document_of_most_of_their_tokens() -> None:
    """Thirty windows of ten documents, of which the last window of each reaches into the next document."""
    documents = torch.arange(10).repeat_interleave(3)[:, None].repeat(1, 5)
    documents[2:-1:3, 3:] += 1
    tokens = torch.zeros(30, 5, dtype=torch.int64)
    windows = Windows((tokens,), {"texts": 30}, documents)
    other = Windows((tokens.repeat_interleave(2, 0),), {"texts": 30}, owners=PAIRS)
    harm = torch.linspace(-0.1, 0.1, 10).double().repeat_interleave(3)
    (found,) = perplexities(
        EvaluationSet({"texts": windows}, {}),
        Measured({"texts": [torch.full((4,), 2.0).double() for _ in range(30)]}, {}),
        Measured(
            {"texts": [torch.full((4,), 1 + float(harm[own]) / 2).double() for own in PAIRS]}, {}
        ),
        EvaluationSet({"texts": other}, {}),
    )
    assert (found.resampled, found.units) == ("documents", 10)
    assert found.ratio_interval is not None
    low, high = ttest_1samp(torch.linspace(-0.1, 0.1, 10).double().numpy(), 0).confidence_interval()
    assert math.log(found.ratio_interval.low) == pytest.approx(low)
    assert math.log(found.ratio_interval.high) == pytest.approx(high)


@pytest.mark.parametrize("documents", [3, 10])
def test_equal_models_on_windows_of_few_documents_are_called_equal(documents: int) -> None:
    """Windows of one document share its luck: taken one by one they give false alarms in far more than 5 %."""
    draw = torch.Generator().manual_seed(1)
    alarms, repeats = 0, 400
    owners = torch.arange(documents).repeat_interleave(8)
    windows = Windows(
        (torch.zeros(len(owners), 5, dtype=torch.int64),),
        {"texts": 1},
        owners[:, None].repeat(1, 5),
    )
    for _ in range(repeats):
        luck = torch.randn(documents, generator=draw).double()[owners]
        (found,) = perplexities(
            EvaluationSet({"texts": windows}, {}),
            Measured({"texts": [torch.full((4,), 3.0).double() for _ in owners]}, {}),
            Measured(
                {"texts": [torch.full((4,), 3 + 0.01 * float(one)).double() for one in luck]}, {}
            ),
        )
        interval = found.ratio_interval
        assert (interval is None) == (documents < FEWEST_UNITS)
        alarms += interval is not None and not interval.low <= 1 <= interval.high
    assert alarms / repeats <= 0.07
