"""Uploaded files: what is taken, what is refused and in which words, and how they are shared out."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pruning_core.errors import DataLeakage, DatasetInvalid, DatasetNotFound, DatasetTooSmall
from pruning_core.intake import admission
from pruning_core.intake.items import MAX_LINE_BYTES, ChoiceItem, TextItem
from pruning_core.intake.userfiles import Split, Use, UserFile, examine, items_of, read
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec

QUESTION = {"question": "Is it?", "choices": ["yes", "no"], "answer": 0}
SPLITS: tuple[Split, Split] = ("calibration", "eval")
FILE_A, FILE_B = (f"file:file_{letter * 26}" for letter in "AB")


def lines(*objects: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects)


def texts(count: int) -> bytes:
    return lines(*({"text": f"document {n}"} for n in range(count)))


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jsonl", texts(3))
    return buffer.getvalue()


def stored(path: Path, content: bytes, *, use: Use = "both") -> UserFile:
    path.write_bytes(content)
    chosen, kind, count = examine(path, name=path.name)
    return UserFile(
        path=path,
        format=chosen,
        kind=kind,
        use=use,
        items=count,
        bytes=len(content),
        sha256="0" * 64,
    )


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (texts(3), ("jsonl", "text", 3)),
        (lines(QUESTION, QUESTION), ("jsonl", "multiple_choice", 2)),
        (b"\n\n" + texts(1) + b"\n", ("jsonl", "text", 1)),
        (b"\xef\xbb\xbf" + texts(2), ("jsonl", "text", 2)),
        (b'{"text": "no newline at the end"}', ("jsonl", "text", 1)),
        (texts(2).replace(b"\n", b"\r\n"), ("jsonl", "text", 2)),
        (b"one\ntwo\n\n \t\nthree\n", ("text", "text", 2)),
        (b"\xef\xbb\xbfone\r\n\r\ntwo", ("text", "text", 2)),
        ("Grüße, 世界\n".encode(), ("text", "text", 1)),
        (b"BZh and PAR1 begin this text", ("text", "text", 1)),
    ],
)
def test_a_sound_file(tmp_path: Path, content: bytes, found: tuple[str, str, int]) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert examine(path, name="mine") == found


BAD: list[tuple[bytes, str]] = [
    (b"", "^mine: empty"),
    (b" \n\t\r\n", "^mine: empty"),
    (gzip.compress(texts(3), mtime=0), "^mine: compressed and binary"),
    (zipped(), "^mine: compressed and binary"),
    (bz2.compress(texts(3)), "^mine: compressed and binary"),
    (lzma.compress(texts(3)), "^mine: compressed and binary"),
    (b"\x28\xb5\x2f\xfd\x04\x00", "^mine: compressed and binary"),
    (b"PAR1\x15\x04\x15", "^mine: compressed and binary"),
    (b"SQLite format 3\0\x10", "^mine: compressed and binary"),
    (b"%PDF-1.7\n", "^mine: compressed and binary"),
    (b"text\nmore\0text", "^mine, line 2: a NUL byte"),
    ('{"text": "x"}'.encode("utf-16-le"), "^mine, line 1: a NUL byte"),
    (texts(2) + b'{"text": "\0"}', "^mine, line 3: a NUL byte"),
    (b"good\n\nb\xffd", r"^mine, line 3: not UTF-8 \(byte 1\)"),
    (b'{"text": "caf\xe9"}', r"^mine, line 1: not UTF-8 \(byte 13\)"),
    (texts(1) + b'{"text": ', "^mine, line 2: not JSON"),
    (texts(1) + b"[1]", "^mine, line 2: not a JSON object"),
    (texts(1) + b'{"txt": "x"}', "^mine, line 2: no JSON object with a `text`"),
    (b'{"text": "\\ud800"}', "^mine, line 1: half a surrogate pair"),
    (b'{"text": ' + b"9" * 5000 + b"}", "^mine, line 1: not JSON"),
    (b'{"a":' * 100_000, "^mine, line 1: not JSON"),
    (lines(QUESTION | {"answer": 2}), "^mine, line 1: `answer` is 2"),
    (lines(QUESTION, {"text": "x"}), "^mine, line 2: .* not both"),
]


@pytest.mark.parametrize(("content", "words"), BAD, ids=lambda part: repr(part)[:30])
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(DatasetInvalid, match=words):
        examine(path, name="mine")


def test_the_sender_s_word_decides_the_format(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"{braces} begin this text")
    assert examine(path, format="text", name="x") == ("text", "text", 1)
    with pytest.raises(DatasetInvalid, match="not JSON"):
        examine(path, name="x")


@pytest.mark.parametrize(
    ("between", "words"),
    [(b"", "^x, line 1: longer"), (b"\n", "^x, line 2: the document is longer")],
)
def test_lines_and_documents_are_bounded(tmp_path: Path, between: bytes, words: str) -> None:
    half = b"a" * (MAX_LINE_BYTES // 2 + 1)
    path = tmp_path / "x"
    path.write_bytes(half + between + half)
    with pytest.raises(DatasetInvalid, match=words):
        examine(path, name="x")


def test_a_long_file_is_read_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(lines({"text": "word " * 2000}) * 2000)
    tracemalloc.start()
    assert examine(path, name="x")[2] == 2000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 < path.stat().st_size


def test_documents_keep_their_lines(tmp_path: Path) -> None:
    file = stored(tmp_path / "x", b"one\n two\n\n\nthree\r\n\r\n")
    assert list(read(file)) == [
        ("x, line 1", TextItem("one\n two")),
        ("x, line 5", TextItem("three")),
    ]


def test_both_shares_out_by_item_and_equal_items_stay_together(tmp_path: Path) -> None:
    file = stored(tmp_path / "x", texts(400) + texts(400).upper().replace(b"TEXT", b"text"))
    sides = {
        split: [item for _, item in items_of(file, split)] for split in ("calibration", "eval")
    }
    assert sum(map(len, sides.values())) == 800
    assert 140 < len(sides["eval"]) < 260
    prints = {split: {item.fingerprint for item in side} for split, side in sides.items()}
    assert prints["calibration"].isdisjoint(prints["eval"])


def test_other_items_move_none(tmp_path: Path) -> None:
    few = stored(tmp_path / "few", texts(40))
    many = stored(tmp_path / "many", texts(80))
    held_out = {item.fingerprint for _, item in items_of(many, "eval")}
    assert {item.fingerprint for _, item in items_of(few, "eval")} < held_out


def test_a_file_for_one_use_has_nothing_for_the_other(tmp_path: Path) -> None:
    calibrating = stored(tmp_path / "c", texts(3), use="calibration")
    evaluating = stored(tmp_path / "e", lines(QUESTION), use="evaluation")
    assert len(list(items_of(calibrating, "calibration"))) == 3
    ((_, item),) = items_of(evaluating, "eval")
    assert isinstance(item, ChoiceItem)
    with pytest.raises(DatasetNotFound) as caught:
        items_of(calibrating, "eval")
    assert "`evaluation` or `both`" in caught.value.suggestions[0]
    with pytest.raises(DatasetNotFound):
        items_of(evaluating, "calibration")


def test_a_side_without_items_says_so(tmp_path: Path) -> None:
    file = stored(tmp_path / "x", texts(1))
    with pytest.raises(DatasetTooSmall, match="1 items"):
        [list(items_of(file, split)) for split in SPLITS]


def test_a_deleted_file_says_so(tmp_path: Path) -> None:
    file = stored(tmp_path / "x", texts(1))
    file.path.unlink()
    with pytest.raises(DatasetNotFound, match="deleted"):
        list(read(file))


def check(files: dict[str, UserFile], *, method: str = "wanda") -> None:
    prune = {
        "method": method,
        "sparsity": 0.5,
        "calibration": {"tasks": [FILE_A], "seq_len": 8},
        "evaluation": {"tasks": [FILE_B], "seq_len": 8},
    }
    model = ModelRef.model_validate("hf://a/b")
    spec = PruneSpec.model_validate(prune)
    admission.check(model, spec, roots=[], tasks_dir=None, files=files)


def test_the_same_bytes_neither_calibrate_nor_evaluate_under_two_names(tmp_path: Path) -> None:
    calibrating = stored(tmp_path / "c", texts(2000), use="calibration")
    evaluating = stored(tmp_path / "e", texts(2000), use="evaluation")
    with pytest.raises(DataLeakage) as caught:
        check({FILE_A: calibrating, FILE_B: evaluating})
    assert caught.value.pointer == "/prune/evaluation/tasks"
    check({FILE_A: calibrating, FILE_B: evaluating}, method="magnitude")
    other = evaluating.model_copy(update={"sha256": "1" * 64})
    check({FILE_A: calibrating, FILE_B: other})
