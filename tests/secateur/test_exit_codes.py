"""Every cause has its exit status, and with --json its line of JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from secateur.exit_codes import ExitCode
from store import leases
from tests.api.jobs import Service
from tests.conftest import REPOSITORY
from tests.secateur.conftest import Run
from tests.servers import free_port

SUBMIT = ("submit", "--model", "hf://org/model", "--method", "wanda", "--sparsity", "0.5")


def as_json(run: Run, *arguments: str) -> tuple[int, dict[str, object]]:
    """Run with --json; nothing but JSON comes, and the last line of stderr is the error."""
    done = run(*arguments, "--json")
    for line in done.stdout.splitlines():
        json.loads(line)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    error = lines[-1]["error"]
    assert error["exit_code"] == done.returncode
    return done.returncode, error


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("show",),
        ("submit", "--model", "hf://a/b"),
        ("list", "--limit", "none"),
        (*SUBMIT, "--unknown"),
        (*SUBMIT[:-1], "50"),
        (*SUBMIT, "--label", "x"),
        (*SUBMIT, "--calibration", "./none.jsonl"),
        ("report", "job", "--html", "-"),
        ("files", "upload", "none.jsonl"),
        ("inspect", "./none"),
    ],
)
def test_usage(run: Run, arguments: tuple[str, ...]) -> None:
    code, error = as_json(run, *arguments)
    assert code == ExitCode.USAGE == 2
    assert error["detail"]


@pytest.mark.parametrize(
    "arguments",
    [
        (*SUBMIT[:-2], "--pattern", "2:3:4"),
        (*SUBMIT, "--samples", "0"),
        ("show", "nobody's"),
        ("list", "--status", "lost"),
        ("files", "show", "file_0"),
    ],
)
def test_refused(run: Run, arguments: tuple[str, ...]) -> None:
    code, error = as_json(run, *arguments)
    assert code == ExitCode.REFUSED == 3
    assert error["status"] in (404, 422)


def test_refusals_name_the_option(run: Run) -> None:
    _, error = as_json(run, *SUBMIT, "--samples", "0", "--eval-windows", "0")
    assert isinstance(error["errors"], list)
    assert [one["option"] for one in error["errors"]] == ["--samples", "--eval-windows"]
    text = run(*SUBMIT, "--samples", "0", "--eval-windows", "0").stderr
    assert "--samples: " in text
    assert "--eval-windows: " in text
    assert "/prune" not in text


@pytest.mark.parametrize(
    ("error_code", "exit_code"),
    [("MODEL_NOT_FINITE", 4), ("POISON", 4), ("QUALITY_GATE_FAILED", 5)],
)
def test_failed_and_gate_missed(
    run: Run, service: Service, error_code: str, exit_code: int
) -> None:
    job_id = run(*SUBMIT).stdout.strip()
    error = {
        "code": error_code,
        "class": "user",
        "retryable": False,
        "detail": "x",
        "suggestions": [],
    }
    claim = service.claim()
    with service.database.write() as session:
        leases.fail(session, claim.job_id, claim.epoch, error)
    code, told = as_json(run, "watch", job_id)
    assert (code, told["code"]) == (exit_code, error_code)
    assert run("watch", job_id).returncode == exit_code


def test_cancelled(run: Run) -> None:
    job_id = run(*SUBMIT).stdout.strip()
    run("cancel", job_id)
    assert as_json(run, "watch", job_id)[0] == ExitCode.CANCELLED == 6


def test_unreachable(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("secateur.transport.pause", lambda *_: 0)
    monkeypatch.setenv("SECATEUR_URL", f"http://127.0.0.1:{free_port()}")
    assert as_json(run, "list")[0] == ExitCode.UNREACHABLE == 7
    monkeypatch.delenv("SECATEUR_URL")
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    assert as_json(run, "list")[0] == 7


def test_a_server_that_is_not_ours(run: Run, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEUR_URL", f"{url}/openapi.json?")
    code, _ = as_json(run, "show", "job_" + "0" * 26)
    assert code in (ExitCode.REFUSED, ExitCode.UNREACHABLE)
    monkeypatch.setenv("SECATEUR_URL", "localhost:8571")
    code, error = as_json(run, "list")
    assert (code, error["suggestions"]) == (2, ["did you mean http://localhost:8571?"])


def test_unauthenticated(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECATEUR_API_KEY", "pk_live_unknown")
    assert as_json(run, "list")[0] == ExitCode.UNAUTHENTICATED == 8
    monkeypatch.delenv("SECATEUR_API_KEY")
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    assert as_json(run, "list")[0] == 8


def test_what_this_machine_cannot_do(run: Run, service: Service) -> None:
    job_id = run(*SUBMIT).stdout.strip()
    service.succeed(service.claim(), page="<html>")
    code, error = as_json(run, "report", job_id, "--html", "none/of/these")
    assert (code, error["code"]) == (ExitCode.ERROR, "NOT_POSSIBLE_HERE")


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.client.Client._changed", interrupt)
    code, _ = as_json(run, *SUBMIT, "--wait")
    assert code == ExitCode.INTERRUPTED == 130
    told = run(*SUBMIT, "--wait", "--name", "x").stderr
    for command in ("watch", "show", "cancel"):
        assert re.search(rf"secateur {command} job_\w{{26}}\b", told)
    monkeypatch.setattr("secateur.client.Client.jobs", interrupt)
    assert as_json(run, "list")[0] == 130


def test_every_code_is_documented() -> None:
    text = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}
    assert documented == {int(code) for code in ExitCode}


def test_version(run: Run) -> None:
    assert re.fullmatch(r"secateur \d+\.\d+\.\d+\n", run("--version").stdout)
