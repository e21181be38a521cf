"""The sentence on what was won and lost, and the names that report and card give to things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pruning_core.reporting import card, page
from pruning_core.reporting.headline import headline
from pruning_core.spec.report import Origin, Report
from pruning_core.spec.report_parts.data import DataReport
from pruning_core.spec.report_parts.quality import Interval
from tests.pruning_core import reports

UPLOAD = "file:file_01hx"


def said(report: Report) -> str:
    return headline(report).replace("\N{NO-BREAK SPACE}", " ")


def unsure(task: str) -> Any:
    chance = {"ratio_interval": Interval(low=0.98, high=1.05)}
    return reports.perplexity(task, 10.0, 10.1).model_copy(update=chance)


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (
            reports.refitted(),
            "20.1 % smaller, perplexity 1.36 x on python_docs, speed 1.22 x in prefill and 1.22 x in decode.",
        ),
        (
            reports.report(perplexity=(reports.perplexity("wikitext2", 10.0, 15.0),)),
            "39.5 % of the parameters are zeros in files of the same size, perplexity 1.5 x on wikitext2, "
            "speed not measured.",
        ),
        (
            reports.zeroed(),
            "10.4 % of the parameters are zeros in files of the same size, quality not measured, "
            "speed not measured.",
        ),
        (
            reports.refitted(bytes_before=50_000_000, speed=None),
            "20.1 % fewer parameters in files 4.3 x as large, perplexity 1.36 x on python_docs, "
            "speed not measured.",
        ),
        (
            reports.report(perplexity=(unsure("a"), reports.perplexity("b", None, 13.4))),
            "39.5 % of the parameters are zeros in files of the same size, perplexity 1.01 x on a (within chance), "
            "perplexity 13.40 on b (dense not measured), speed not measured.",
        ),
        (
            reports.full(),
            "39.5 % of the parameters are zeros in files of the same size, perplexity 1 to 1.49 x on 3 texts, "
            "accuracy -7.0 points on 3 tasks, speed the same.",
        ),
    ],
)
def test_headline(report: Report, sentence: str) -> None:
    assert said(report) == sentence


def test_headline_of_questions_says_when_chance_explains_them() -> None:
    one = reports.accuracy("medqa")
    alone = {"accuracy": (one,), "perplexity": ()}
    assert "accuracy 62.0 to 55.0 % on medqa, " in said(reports.full(**alone))
    same = one.model_copy(update={"acc": one.acc_norm})
    assert "accuracy 60.0 to 59.0 % on medqa (within chance)" in said(
        reports.full(**alone | {"accuracy": (same,)})
    )


def test_headline_says_when_there_is_too_little_to_tell() -> None:
    text = reports.perplexity("notes", 10.0, 12.0).model_copy(update={"ratio_interval": None})
    one = reports.accuracy("medqa")
    few = one.model_copy(update={"acc": one.acc.model_copy(update={"p_value": None})})
    sentence = said(reports.full(perplexity=(text,), accuracy=(few,)))
    assert "perplexity 1.2 x on notes (too few documents to tell)" in sentence
    assert "on medqa (too few questions to tell)" in sentence


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"doubts": ("rounds disagree (decode: 0.9 to 1.5)",)}, "speed not reliably measured."),
        ({"prefill": 1840.9}, "speed the same in prefill and 1.22 x in decode."),
        ({"prefill": 1234.5}, "speed 0.673 x in prefill and 1.22 x in decode."),
        ({"ratios": {}, "dense": None}, "speed not compared with the dense model."),
    ],
)
def test_headline_has_no_speed_that_is_in_doubt(changes: dict[str, Any], told: str) -> None:
    measured = reports.speed(**{"prefill": 2240.9, "decode": 33.01} | changes)
    assert said(reports.refitted(speed=measured)).endswith(told)


def named(tmp_path: Path, report: Report, base_model: str | None = None) -> tuple[str, str]:
    """The page's text and the card's."""
    (tmp_path / "dense").mkdir()
    card.write(report, base_model=base_model, source=tmp_path / "dense", checkpoint=tmp_path)
    return page.html(report), (tmp_path / "README.md").read_text().replace("\\", "")


def test_page_and_card_name_model_job_and_date(tmp_path: Path) -> None:
    origin = Origin(
        model="hf://org/name", revision="main", commit="c0ffee", job_id="job_9", job_name="nightly"
    )
    for text in named(tmp_path, reports.refitted(origin=origin), "org/name"):
        for fact in ("org/name", "main = c0ffee", "job_9", "nightly", "2026-01-02 03:09 UTC"):
            assert fact in text
        assert "20.1" in text


def test_card_names_a_local_model_without_its_place(tmp_path: Path) -> None:
    origin = Origin(model="file:///srv/secret/My%20Model.gguf")
    shown, written = named(tmp_path, reports.report(origin=origin))
    assert "My Model.gguf" in shown
    assert "My Model.gguf" in written
    assert "secret" not in written


def test_uploaded_files_are_called_by_their_names(tmp_path: Path) -> None:
    used = DataReport(
        task=UPLOAD,
        split="eval",
        origin="file",
        file="notes & more.jsonl",
        items=9,
        digest="sha256:0",
    )
    report = reports.full(
        perplexity=(reports.perplexity(UPLOAD, 10.0, 12.0),),
        accuracy=(reports.accuracy(UPLOAD),),
        gates=(),
        data=(used,),
    )
    shown, written = named(tmp_path, report)
    assert f"notes &amp; more.jsonl ({UPLOAD})" in shown
    assert f"notes &amp; more.jsonl ({UPLOAD})" in written
    assert "perplexity 1.2 x on notes & more.jsonl" in said(report)


def test_gate_of_an_upload_is_called_by_the_file_s_name() -> None:
    used = DataReport(
        task=UPLOAD, split="eval", origin="file", file="a.b.jsonl", items=9, digest="sha256:0"
    )
    missed = reports.full().gates[1].model_copy(update={"metric": f"{UPLOAD}.acc_drop"})
    shown = page.html(reports.full(gates=(missed,), data=(used,)))
    assert "(a.b.jsonl.acc_drop)" in shown
