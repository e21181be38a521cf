"""The command line, as a process, against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Timer

import pytest

from secateur import config, quantities
from secateur.config import Credentials, find_credentials, write_credentials
from secateur.errors import ConfigurationError
from tests.api.jobs import COEFFICIENTS, FILES, PRESET, Service
from tests.secateur.conftest import Run

SUBMIT = ("submit", "--model", "hf://org/model@main", "--method", "wanda", "--sparsity", "0.5")


def test_submit_prints_the_id_alone(run: Run, service: Service) -> None:
    done = run(*SUBMIT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == service.claim().job_id


def test_any_field_of_the_specification_can_be_set(run: Run) -> None:
    options = (
        "--pattern", "2:4", "--set", "pattern.permute=fold", "--set", 'refinement=["dsnot"]',
        "--set", "method.damp=0.05",
    )  # fmt: skip
    model = ("--model", "hf://org/model@main", "--method", "sparsegpt")
    done = run("submit", *model, *options, "--json")
    assert done.returncode == 0, done.stderr
    prune = json.loads(done.stdout)["spec"]["prune"]
    assert prune["pattern"] == {"name": "n:m", "n": 2, "m": 4, "permute": "fold"}
    assert [part["name"] for part in prune["refinement"]] == ["dsnot"]
    assert prune["method"]["damp"] == 0.05


@pytest.mark.parametrize("assignment", ["no-equals", "=1", "sparsity.more=1"])
def test_a_bad_assignment_is_refused(run: Run, assignment: str) -> None:
    done = run(*SUBMIT, "--set", assignment)
    assert done.returncode == 2
    assert "--set" in done.stderr


def test_every_option_reaches_the_specification(run: Run) -> None:
    options = (
        "--calibration", "python_docs", "--samples", "4", "--seq-len", "128", "--seed", "7",
        "--eval-windows", "2", "--eval-seq-len", "64", "--name", "a name", "--label", "team=edge=1",
    )  # fmt: skip
    done = run(*SUBMIT, *options, "--json")
    job = json.loads(done.stdout)
    assert (job["name"], job["labels"]) == ("a name", {"team": "edge=1"})
    assert job["spec"]["model"] == {"ref": "hf://org/model", "revision": "main"}
    prune = job["spec"]["prune"]
    calibration = prune["calibration"]
    assert calibration["tasks"] == [{"name": "python_docs", "samples": 4, "weight": None}]
    assert (calibration["seq_len"], calibration["seed"]) == (128, 7)
    assert prune["evaluation"]["windows"] == 2
    assert prune["evaluation"]["seq_len"] == 64


@pytest.mark.parametrize(
    ("option", "budget"),
    [
        (("--parameters", "100M"), {"parameters": 100_000_000, "bytes": None}),
        (("--parameters", "1.2B"), {"parameters": 1_200_000_000, "bytes": None}),
        (("--bytes", "1.2GiB"), {"parameters": None, "bytes": 1_288_490_188}),
    ],
)
def test_a_budget_takes_the_place_of_a_share(
    run: Run, option: tuple[str, str], budget: dict[str, int | None]
) -> None:
    model = ("--model", "hf://org/model@main", "--method", "layer_drop")
    done = run("submit", *model, *option, "--json")
    assert done.returncode == 0, done.stderr
    prune = json.loads(done.stdout)["spec"]["prune"]
    assert (prune["sparsity"], prune["budget"]) == (None, budget)


@pytest.mark.parametrize("text", ["", "many", "0", "1.5", "-3M", "100MB", "1e9", "7Gi"])
def test_a_number_of_parameters_is_one(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        quantities.parameters(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("135_000_000", 135_000_000), ("1.2G", 1_200_000_000), ("7b", 7 * 10**9), ("10k", 10_000)],
)
def test_numbers_of_parameters(text: str, expected: int) -> None:
    assert quantities.parameters(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5B", 5),
        ("250M", 250 * 10**6),
        ("250 MB", 250 * 10**6),
        ("1.5kib", 1536),
        ("2TB", 2 * 10**12),
    ],
)
def test_numbers_of_bytes(text: str, expected: int) -> None:
    assert quantities.byte_count(text) == expected


@pytest.mark.parametrize("text", ["0", "0.4", "iB", "3 apples", "1.5"])
def test_a_number_of_bytes_is_one(text: str) -> None:
    with pytest.raises(ValueError, match="number"):
        quantities.byte_count(text)


def test_a_number_that_is_none_names_its_option(run: Run) -> None:
    done = run(*SUBMIT[:-2], "--parameters", "many")
    assert done.returncode == 2
    assert "--parameters" in done.stderr


def test_tasks_and_gates_reach_the_specification(run: Run) -> None:
    options = (
        "--evaluate", "python_docs", "--gate", "python_docs.ppl_ratio<=1.5",
        "--gate", "python_docs.ppl >= 2e0",
    )  # fmt: skip
    prune = json.loads(run(*SUBMIT, *options, "--json").stdout)["spec"]["prune"]
    assert prune["evaluation"]["tasks"] == ["python_docs"]
    assert prune["gates"] == [
        {"metric": "python_docs.ppl_ratio", "min": None, "max": 1.5},
        {"metric": "python_docs.ppl", "min": 2.0, "max": None},
    ]


def test_samples_without_a_task_are_those_of_the_default(run: Run) -> None:
    calibration = json.loads(run(*SUBMIT, "--samples", "4", "--json").stdout)["spec"]["prune"][
        "calibration"
    ]
    assert (calibration["tasks"][0]["name"], calibration["samples"]) == ("python_docs", 4)


def test_an_empty_list_can_be_set(run: Run) -> None:
    prune = json.loads(run(*SUBMIT, "--set", "evaluation.tasks=[]", "--json").stdout)["spec"][
        "prune"
    ]
    assert prune["evaluation"]["tasks"] == []


def test_pattern_n_of_m(run: Run) -> None:
    done = run(*SUBMIT[:-2], "--pattern", "2:4", "--json")
    pattern = json.loads(done.stdout)["spec"]["prune"]["pattern"]
    assert (pattern["name"], pattern["n"], pattern["m"]) == ("n:m", 2, 4)


def test_path_of_a_model_becomes_a_reference(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a model").mkdir()
    done = run("submit", "--model", "a model", "--method", "magnitude", "--sparsity", "0.5")
    assert done.returncode == 3
    assert "MODEL_NOT_ALLOWED" in done.stderr


def test_error_is_one_readable_block(run: Run) -> None:
    done = run("submit", "--model", "hf://a/b", "--method", "wandaa", "--sparsity", "0.5")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("VALIDATION_FAILED")
    assert "did you mean `wanda`?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("submit",),
        ("nothing",),
        (*SUBMIT, "--label", "x"),
        (*SUBMIT, "--gate", "x<1"),
    ],
)
def test_misuse_exits_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2


def test_submit_and_wait_shows_the_report(run: Run, service: Service) -> None:
    def work() -> None:
        claim = service.claim()
        service.progress(claim, 1)
        service.succeed(claim)

    with_timer = Timer(4, work)
    with_timer.start()
    done = run(*SUBMIT, "--wait")
    with_timer.join()
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert "12.25" in done.stdout
    assert "zeros alone make nothing smaller or faster" in done.stdout


def test_watch_of_a_failed_job_fails(run: Run, service: Service) -> None:
    job_id = run(*SUBMIT).stdout.strip()
    service.fail(service.claim())
    done = run("watch", job_id)
    assert done.returncode == 4
    assert "MODEL_NOT_FINITE" in done.stderr
    assert "use another checkpoint" in done.stderr
    done = run("watch", job_id, "--json")
    types = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert types == ["job.queued", "job.started", "job.failed"]


def test_list_show_cancel(run: Run) -> None:
    job_id = run(*SUBMIT, "--name", "mine").stdout.strip()
    listed = run("list").stdout
    assert job_id in listed
    assert "50 % per row" in listed
    assert json.loads(run("list", "--json", "--status", "running").stdout) == []
    shown = run("show", job_id).stdout
    assert "mine" in shown
    assert "queued" in shown
    assert run("cancel", job_id).stdout.strip() == "cancelled"
    again = run("cancel", job_id)
    assert (again.returncode, again.stderr.split()[0]) == (3, "STATE_CONFLICT")


def test_download(run: Run, service: Service, tmp_path: Path) -> None:
    job_id = run(*SUBMIT).stdout.strip()
    service.succeed(service.claim())
    done = run("download", job_id, "my model", "--json")
    assert done.returncode == 0, done.stderr
    folder = Path(json.loads(done.stdout)["checkpoint"])
    assert folder == tmp_path / "my model"
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    again = run("download", job_id, "my model")
    assert "every sha256 as in the manifest" in again.stdout


def test_catalogues(run: Run) -> None:
    assert "wanda" in run("methods").stdout
    assert "python_docs" in run("tasks").stdout
    assert json.loads(run("methods", "--json").stdout)
    assert json.loads(run("tasks", "--json").stdout)


def test_presets(run: Run, service: Service) -> None:
    job_id = run(*SUBMIT).stdout.strip()
    service.succeed(service.claim(), {}, preset=PRESET)
    (line,) = [line for line in run("presets").stdout.splitlines() if line.startswith("mine ")]
    assert line.split()[:7] == ["mine", "0.7321", "0.3", "0.9679", "5", "ratio", job_id]
    assert line.rstrip().endswith(PRESET.coefficients["found"])
    presets = {preset["name"]: preset for preset in json.loads(run("presets", "--json").stdout)}
    assert presets["mine"]["coefficients"] == COEFFICIENTS


def test_credentials_of_the_local_service_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("SECATEUR_URL", raising=False)
    monkeypatch.delenv("SECATEUR_API_KEY", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        find_credentials()
    assert caught.value.code == "NO_SERVER"
    path = write_credentials(tmp_path, Credentials("http://127.0.0.1:1", "local"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert find_credentials() == Credentials("http://127.0.0.1:1", "local")
    assert find_credentials(api_key="other").api_key == "other"
    with pytest.raises(ConfigurationError):
        find_credentials("https://elsewhere.example")
    monkeypatch.setenv("SECATEUR_API_KEY", "mine")
    assert find_credentials("https://elsewhere.example").api_key == "mine"


def test_damaged_credentials_are_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEUR_DATA_DIR", str(tmp_path))
    (tmp_path / config.CREDENTIALS).write_text("{")
    with pytest.raises(ConfigurationError) as caught:
        find_credentials()
    assert caught.value.code == "CREDENTIALS_UNREADABLE"
