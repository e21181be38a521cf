"""`secateur report`, as a process, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.report import Report
from pruning_core.spec.report_parts.quality import GateReport, Interval
from secateur import render
from secateur.config import child_environment
from tests.api.jobs import REPORT, Service
from tests.pruning_core import reports

SUBMIT = ("submit", "--model", "hf://org/model@main", "--method", "wanda", "--sparsity", "0.5")
PAGE = "<!DOCTYPE html><title>ä report</title>"


def run(url: str, service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = child_environment({"SECATEUR_URL": url, "SECATEUR_API_KEY": service.secret})
    return subprocess.run(
        [sys.executable, "-m", "secateur.cli", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def job_id(url: str, service: Service) -> str:
    job_id = run(url, service, *SUBMIT).stdout.strip()
    service.succeed(service.claim(), page=PAGE)
    return job_id


def test_report_in_the_terminal_as_json_and_as_a_page(
    url: str, service: Service, job_id: str, tmp_path: Path
) -> None:
    shown = run(url, service, "report", job_id)
    assert "10.5" in shown.stdout
    assert "zeros alone make nothing smaller or faster" in shown.stdout
    assert json.loads(run(url, service, "report", job_id, "--json").stdout) == REPORT
    page = tmp_path / "report.html"
    done = run(url, service, "report", job_id, "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert page.read_text(encoding="utf-8") == PAGE
    assert done.stdout == ""


def test_everything_measured_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with render.out.capture() as captured:
        render.report(reports.full(1).model_dump(mode="json"))
    text = captured.get()
    for expected in (
        "perplexity, law_contracts (32752 tokens)", "15.25 (14.64 to 15.86)",
        "acc_norm, medqa (400 items)", "62 % (57.04 to 66.96)", "0.61",
        "acc, piqa (lm_eval)", "decode, tokens per second", "27.01",
        "gate medqa.acc_drop: 0.07, at most 0.05 was asked for: missed",
        "gate python_docs.ppl_ratio: 1.36, at most 1.5 was asked for: passed",
    ):  # fmt: skip
        assert expected in text, expected


def test_what_chance_may_have_decided_is_said() -> None:
    gate = GateReport(
        metric="a.ppl",
        min=None,
        max=12,
        value=11.5,
        passed=True,
        interval=Interval(low=11, high=13),
    )
    unsure = reports.perplexity("a", 10.0, 11.5).model_copy(update={"ratio_interval": None})
    text = shown(reports.report(gates=(gate,), perplexity=(unsure,)))
    assert "pruned over dense, a (too few documents to tell)" in text
    assert "gate a.ppl: 11.5, at most 12 was asked for: passed, within chance" in text


def test_how_much_of_the_text_the_kept_tokens_cover_is_shown() -> None:
    text = shown(reports.without_tokens())
    assert "tokens kept, python_docs" in text
    assert "98.32 %" in text


def test_a_speed_in_doubt_is_called_so() -> None:
    sure = shown(reports.refitted())
    assert "decode, pruned over dense" in sure
    assert "1.217 (1.192 to 1.241)" in sure
    assert "not reliably" not in sure
    doubted = reports.speed(2240.9, 33.01, doubts=("rounds disagree",))
    assert "decode, pruned over dense (not reliably measured)" in shown(
        reports.refitted(speed=doubted)
    )


def shown(report: Report) -> str:
    with render.out.capture() as captured:
        render.report(report.model_dump(mode="json"))
    return captured.get()


def test_a_smaller_model_is_shown_as_one() -> None:
    text = shown(reports.refitted())
    for expected in (
        "107,419,968 (20.1 % fewer)", "214,839,936 (20.1 % fewer)", "neurons per feed-forward", "1,184",
        "key-value groups per block",
        "fine-tuned (full): validation loss 3.432 before, 3.012 after, 120 steps, stopped by patience",
    ):  # fmt: skip
        assert expected in text, expected
    assert "parameters not zero" not in text


def test_bits_per_byte_stand_beside_perplexities_where_tokens_were_removed() -> None:
    text = shown(reports.without_tokens())
    assert "bits per byte" in text
    assert "pruned over dense" in text


def test_zeroed_units_are_no_smaller_model() -> None:
    text = shown(reports.masked_residual())
    assert "parameters not zero" in text
    assert "460 not zeroed" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "wanda", "sparsity": 0.5}, "50 % per row"),
        ({"method": "wanda", "pattern": {"name": "n:m", "n": 2, "m": 4}}, "2:4 kept"),
        ({"method": "goa", "sparsity": 0.2}, "20 % of the model"),
        ({"method": "goa", "budget": {"parameters": 10**8}}, "to 100,000,000 parameters"),
        ({"method": "goa", "budget": {"bytes": 10**8}}, "to 100,000,000 bytes"),
        ({"method": {"name": "contextual", "absolute": 0.0}}, "by threshold"),
        (
            {"method": "diet", "sparsity": 0.2, "pattern": {"name": "units", "mode": "zero"}},
            "20 % of the model, zeroed",
        ),
    ],
)
def test_amount_asked_for(changes: dict[str, Any], expected: str) -> None:
    spec = PruneSpec.model_validate(changes)
    assert render.amount(spec.model_dump(mode="json")) == expected
