"""`make demo` on a tiny model: the same service, job, download and check."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur import demo
from tests import tiny

SMALL = {
    "method": "wanda",
    "sparsity": 0.5,
    "calibration": {"tasks": [{"name": "python_docs", "samples": 2}], "seq_len": 32},
    "evaluation": {"windows": 1, "seq_len": 32},
}


def test_a_second_run_uses_the_job_of_the_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "DATA_DIR", tmp_path / "with a space")
    monkeypatch.setattr(demo, "PRUNE", SMALL)
    monkeypatch.setenv("SECATEUR_DATABASE_URL", "postgresql://somebody@elsewhere/else")
    model = tiny.save(tmp_path / "models" / "tiny", "llama")
    with demo.service(model.parent) as client:
        first = demo.run(client, model)
    assert first["status"] == "succeeded"
    assert first["sparsity"] == 0.5
    assert first["ppl_dense"] > 1
    assert first["ppl_pruned"] > 1
    assert (Path(first["checkpoint"]) / "config.json").is_file()
    with demo.service(model.parent) as client:
        assert demo.run(client, model) == first
    assert "it is used again" in capsys.readouterr().out


def test_without_the_model_s_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "MODEL_PACKAGE", "no_such_package")
    with pytest.raises(demo.DemoFailed, match="NO_MODEL"):
        demo.find_model()
