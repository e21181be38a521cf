"""Multiple choice by log-likelihood: many questions in one pass, each scored as if it were alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.readings import Question
from pruning_core.errors import DatasetInvalid, NumericalFailure
from pruning_core.evaluate import choice_rows
from pruning_core.evaluate.multiple_choice import accuracy, score
from pruning_core.families import FAMILIES
from pruning_core.model.streamed import StreamedModel
from pruning_core.text.question_tokens import Encoded, encode
from tests import tiny

CPU = torch.device("cpu")
MODEL_TYPES = sorted(name for family in FAMILIES for name in family.model_types)


def question(*continuations: str, prompt: str = "Q: why?", answer: int = 0) -> Question:
    return Question("here, line 1", (prompt,) * len(continuations), continuations, answer)


def drawn(choices_: int, prompt: int, seed: int) -> Encoded:
    generator = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, tiny.VOCAB, (count,), generator=generator).tolist())

    shared = ids(prompt)
    sequences = tuple(shared + ids(1 + (seed + index) % 5) for index in range(choices_))
    return Encoded(sequences, (prompt,) * choices_, 0, (1,) * choices_)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@torch.no_grad()
def test_packed_questions_score_as_each_choice_alone(
    model_type: str, dense: Callable[[str], Path]
) -> None:
    """The tiny models' windows slide over 8 tokens: the third question goes beyond, the others do not."""
    folder = dense(model_type)
    questions = [drawn(3, 2, 0), drawn(4, 1, 1), drawn(2, 30, 2), drawn(5, 3, 3)]
    found = score(StreamedModel(folder, inspect(folder), CPU), questions)
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    for one, values in zip(questions, found, strict=True):
        for sequence, start, value in zip(one.sequences, one.starts, values, strict=True):
            logits = stock(torch.tensor([sequence])).logits[0].log_softmax(-1)
            expected = sum(
                float(logits[place - 1, sequence[place]]) for place in range(start, len(sequence))
            )
            assert value == pytest.approx(expected, abs=2e-5)  # float32 in another order


@pytest.mark.parametrize("model_type", ["gpt2", "opt"])
@torch.no_grad()
def test_a_row_may_be_longer_than_the_model_s_window(model_type: str, tmp_path: Path) -> None:
    limit = {"gpt2": "n_positions", "opt": "max_position_embeddings"}[model_type]
    folder = tiny.save(tmp_path / "m", model_type, **{limit: 16})
    questions = [drawn(4, 6, seed) for seed in range(8)]
    found = score(StreamedModel(folder, inspect(folder), CPU), questions)
    alone = [score(StreamedModel(folder, inspect(folder), CPU), [one])[0] for one in questions]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(alone), rtol=0, atol=2e-5)


@torch.no_grad()
def test_choices_that_share_nothing_go_alone_where_their_mask_would_be_large(
    dense: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dense("llama")
    model = StreamedModel(folder, inspect(folder), CPU)
    one = Encoded(((5, 6, 7, 8), (9, 6, 7, 8), (10, 11, 12)), (1, 1, 1), 0, (1, 1, 1))
    together = score(model, [one])
    monkeypatch.setattr(choice_rows, "ROW_TOKENS", 4)
    torch.testing.assert_close(
        torch.tensor(score(model, [one])), torch.tensor(together), rtol=0, atol=2e-5
    )


@torch.no_grad()
def test_the_passes_do_not_matter(
    dense: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dense("llama")
    model = StreamedModel(folder, inspect(folder), CPU)
    questions = [drawn(3, 2 + seed % 7, seed) for seed in range(20)]
    together = score(model, questions)
    monkeypatch.setattr(choice_rows, "ROW_TOKENS", 24)
    monkeypatch.setattr(choice_rows, "PASS_TOKENS", 60)
    shares: list[float] = []
    apart = score(model, questions, shares.append)
    torch.testing.assert_close(torch.tensor(apart), torch.tensor(together), rtol=0, atol=1e-5)
    assert len(shares) > tiny.BLOCKS
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_shared_tokens_are_read_once() -> None:
    sequences = ((5, 6, 7, 8), (5, 6, 9, 10, 11), (5, 6, 7, 12))
    one = Encoded(sequences, (2, 2, 2), 0, (1, 1, 1))
    assert one.prefix == 2
    assert one.size == 2 + 1 + 2 + 1
    assert one.longest == 4


def test_a_choice_that_is_one_token_costs_nothing() -> None:
    one = Encoded(((5, 6, 7), (5, 6, 8)), (2, 2), 0, (1, 1))
    assert (one.prefix, one.size) == (2, 2)


def test_spaces_at_the_end_of_a_prompt_belong_to_the_continuation() -> None:
    (one,) = encode(tiny.tokenizer(), [question(" a", " bb", prompt="Q: ")], 100)
    plain = tiny.tokenizer()("Q:", add_special_tokens=False)["input_ids"]
    assert one.starts == (len(plain), len(plain))
    assert one.lengths == (1, 2)
    assert len(one.sequences[1]) == len(plain) + len("  bb")


def test_an_empty_prompt_begins_with_the_first_token() -> None:
    (one,) = encode(tiny.tokenizer(), [question("a", "b", prompt="")], 100)
    assert [sequence[0] for sequence in one.sequences] == [1, 1]
    assert one.starts == (1, 1)


def test_where_the_choice_is_in_the_prompt_its_length_counts() -> None:
    asked = Question("x", ("He a", "He bcd"), (" ran.", " ran."), 1)
    (one,) = encode(tiny.tokenizer(), [asked], 100)
    assert one.lengths == (4, 6)


def test_a_question_beyond_the_window_is_refused_by_line() -> None:
    with pytest.raises(
        DatasetInvalid, match=r"here, line 1: \d+ tokens; the model reads at most 5"
    ):
        encode(tiny.tokenizer(), [question(" a", " b", prompt="long prompt")], 5)


def test_the_likeliest_choice_is_the_answer_and_the_first_of_equals() -> None:
    one = Encoded(((1, 2), (1, 3)), (1, 1), 1, (1, 10))
    assert accuracy([one], [[-2.0, -3.0]], normalised=False) == [False]
    assert accuracy([one], [[-2.0, -3.0]], normalised=True) == [True]
    assert accuracy([one], [[-2.0, -2.0]], normalised=False) == [False]


@torch.no_grad()
def test_a_likelihood_that_is_not_finite_is_an_error(dense: Callable[[str], Path]) -> None:
    folder = dense("llama")
    model = StreamedModel(folder, inspect(folder), CPU)
    with torch.no_grad():
        model.model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(NumericalFailure, match="log-likelihood"):
        score(model, [drawn(2, 3, 0)])
