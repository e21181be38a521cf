"""What a child inherits, and what it says that is no message."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.rig import Rig
from worker.child import scrubbed
from worker.protocol import Failed, decode


def test_no_secret_of_the_service_passes() -> None:
    passed = scrubbed(
        {
            "PATH": "/bin",
            "LC_ALL": "C",
            "HF_TOKEN": "hub",
            "OMP_NUM_THREADS": "2",
            "https_proxy": "http://proxy",
            "SECATEUR_DATABASE_URL": "postgresql://canary",
            "SECATEUR_BROKER_URL": "redis://canary",
            "AWS_SECRET_ACCESS_KEY": "canary",
            "PGPASSWORD": "canary",
        }
    )
    assert "canary" not in str(passed)
    assert set(passed) == {"PATH", "LC_ALL", "HF_TOKEN", "OMP_NUM_THREADS", "https_proxy"}


def test_a_real_child_sees_no_setting_of_the_service(rig: Rig, tmp_path: Path) -> None:
    seen = tmp_path / "environment.txt"
    rig.configure(tasks_dir=tmp_path)
    job_id = rig.submit()
    rig.worker(rig.child(environment=str(seen)))
    rig.wait(job_id, "succeeded")
    entries = seen.read_text().rstrip("\0").split("\0")
    environment = dict(entry.partition("=")[::2] for entry in entries)
    assert environment.pop("SECATEUR_TASKS_DIR") == str(tmp_path)
    assert not [name for name in environment if name.startswith("SECATEUR_")]
    assert rig.settings.database_url not in environment.values()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\n",
        b"null",
        b"[]",
        b'{"type": "succeeded"}',
        b'{"type": "other"}',
        b'{"type": "progress", "progress": {"phase": "pruning", "step": -1}}',
        b'{"type": "failed", "error": {"code": "X"}}',
    ],
)
def test_garbage_is_no_message(line: bytes) -> None:
    assert decode(line) is None


def test_nul_never_reaches_the_database() -> None:
    error = '{"code":"X","class":"user","retryable":false,"detail":"a\\u0000b","suggestions":[]}'
    message = decode(f'{{"type":"failed","error":{error}}}'.encode())
    assert isinstance(message, Failed)
    assert message.error["detail"] == "a\N{REPLACEMENT CHARACTER}b"
