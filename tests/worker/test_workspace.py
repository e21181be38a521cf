"""Folders of attempts: what the next one takes over, and that it shares no mutable file."""

from __future__ import annotations

from pathlib import Path

from worker.workspace import Workspace


def blocks(folder: Path, *numbers: int) -> None:
    for number in numbers:
        (folder / "work" / f"block-{number:05d}.safetensors").write_bytes(b"%d" % number)
    (folder / "work" / "ledger.json").write_text(str(list(numbers)))


def test_the_next_attempt_takes_over_finished_blocks(tmp_path: Path) -> None:
    space = Workspace(tmp_path, "job_1")
    first = space.prepare(1)
    blocks(first, 0, 1)
    (first / "work" / "block-00002.safetensors.tmp").write_bytes(b"half")
    (first / "work" / "checkpoint").mkdir()
    (first / "log.txt").write_text("old")
    second = space.prepare(2)
    assert sorted(path.name for path in (second / "work").iterdir()) == [
        "block-00000.safetensors",
        "block-00001.safetensors",
        "ledger.json",
    ]
    assert [path.name for path in second.iterdir()] == ["work"]
    assert space.epochs() == [2]


def test_what_was_decided_before_the_first_block_is_taken_over(tmp_path: Path) -> None:
    space = Workspace(tmp_path, "job_1")
    first = space.prepare(1)
    (first / "work" / "decided.json").write_text("{}")
    (first / "self-0a.safetensors").write_bytes(b"text")
    (first / "self-0b.safetensors.tmp").write_bytes(b"half")
    second = space.prepare(2)
    assert sorted(path.name for path in second.iterdir()) == ["self-0a.safetensors", "work"]
    assert [path.name for path in (second / "work").iterdir()] == ["decided.json"]


def recovery(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / "work" / "recovery" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def taken(folder: Path) -> set[str]:
    root = folder / "work" / "recovery"
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_finished_training_is_taken_over_whole_or_not_at_all(tmp_path: Path) -> None:
    space = Workspace(tmp_path, "job_1")
    first = space.prepare(1)
    begun = ("recovery-job.json", "recovery-state.safetensors")
    ended = ("recovered/model.safetensors", "recovered/sub/a.json", "recovered-probe.safetensors")
    recovery(first, *begun, *ended)
    recovery(first, "recovery-state.safetensors.tmp", "recovered.tmp/model.safetensors")
    second = space.prepare(2)
    assert taken(second) == set(begun)
    recovery(second, *ended, "recovered.json", "recovered.json.tmp", "recovered.tmp/a")
    assert taken(space.prepare(3)) == {*begun, *ended, "recovered.json"}


def test_the_ledger_is_no_link(tmp_path: Path) -> None:
    """A zombie of the earlier attempt may still write to its own."""
    space = Workspace(tmp_path, "job_1")
    first = space.prepare(1)
    blocks(first, 0)
    with (first / "work" / "ledger.json").open("a") as zombie:
        second = space.prepare(2)
        zombie.write("late")
    assert (second / "work" / "ledger.json").read_text() == "[0]"


def test_the_newest_attempt_with_a_ledger_counts(tmp_path: Path) -> None:
    space = Workspace(tmp_path, "job_1")
    blocks(space.prepare(1), 0)
    (space.root / "e3.tmp" / "work").mkdir(parents=True)
    (space.root / "e2" / "work").mkdir(parents=True)
    assert (space.prepare(4) / "work" / "ledger.json").read_text() == "[0]"
    space.remove()
    assert not space.root.exists()


def test_a_finished_result_is_taken_over_whole_or_not_at_all(tmp_path: Path) -> None:
    space = Workspace(tmp_path, "job_1")
    first = space.prepare(1)
    (first / "checkpoint" / "sub").mkdir(parents=True)
    (first / "checkpoint" / "sub" / "a.bin").write_bytes(b"a")
    second = space.prepare(2)
    assert not (second / "checkpoint").exists()
    (second / "checkpoint" / "sub").mkdir(parents=True)
    (second / "checkpoint" / "sub" / "a.bin").write_bytes(b"a")
    (second / "report.json").write_text("{}")
    third = space.prepare(3)
    assert (third / "checkpoint" / "sub" / "a.bin").read_bytes() == b"a"
    assert (third / "report.json").read_text() == "{}"
