"""`secateur report`, as a process, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
