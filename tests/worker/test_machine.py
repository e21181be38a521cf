from __future__ import annotations

import pytest

from worker import machine


def test_a_machine_says_what_it_prunes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SECONDS", 0.05)
    assert machine.cpu_flops() > 1e8
    monkeypatch.setattr(machine, "version", lambda _: "2.13.0+cpu")
    assert machine.device() == "cpu"


@pytest.mark.parametrize(("hidden", "found"), [("", "cpu"), ("-1", "cpu"), ("0", "gpu")])
def test_an_accelerator_that_is_hidden_is_none(
    monkeypatch: pytest.MonkeyPatch, hidden: str, found: str
) -> None:
    monkeypatch.setattr(machine, "version", lambda _: "2.13.0")
    monkeypatch.setattr("pathlib.Path.glob", lambda *_: iter(["/dev/nvidia0"]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert machine.device() == found
