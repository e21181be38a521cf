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

from pruning_core.admission import submission
from pruning_core.datasets.items import MAX_LINE_BYTES, ChoiceItem, TextItem
from pruning_core.datasets.uploads import Split, Use, UserFile, examine, items_of, read, survey
from pruning_core.errors import DataLeakage, DatasetInvalid, DatasetNotFound, DatasetTooSmall
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
    found = survey(path, name=path.name)
    return UserFile(
        path=path,
        format=found.format,
        kind=found.kind,
        use=use,
        items=found.items,
        bytes=len(content),
        sha256="0" * 64,
        splits=found.sizes(use),
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
    (texts(1) + b'{"txt": "x"}', "^mine, line 2: not an object with `text`"),
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


ROWS = [{"text": f'A sentence, "number" {n}.', "n": n} for n in range(20)]
CHATS = [
    {"messages": [{"role": "user", "content": f"Q{n}"}, {"role": "assistant", "content": "A"}]}
    for n in range(5)
]
ALPACA = [{"instruction": f"Say {n}", "input": "", "output": str(n)} for n in range(5)]


def table(delimiter: str = ",", newline: str = "\n") -> bytes:
    texts = (row["text"].replace('"', '""') for row in ROWS)
    cells = (f'"{text}{newline}and on"{delimiter}{n}' for n, text in enumerate(texts))
    return newline.join([f"text{delimiter}n", *cells, ""]).encode()


@pytest.mark.parametrize("declared", ["jsonl", "text", "json", None])
@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.json", json.dumps(ROWS).encode(), ("json", 20)),
        ("a.json", json.dumps(ROWS, indent=2).encode(), ("json", 20)),
        ("a.json", b"\xef\xbb\xbf \r\n" + json.dumps(ROWS).encode(), ("json", 20)),
        ("a.json", b"\xef\xbb\xbf" + lines(*ROWS), ("jsonl", 20)),
        ("a.json", json.dumps(CHATS).encode(), ("json", 5)),
        ("a.json", json.dumps(ALPACA, indent=1).encode(), ("json", 5)),
        ("a.csv", table(), ("csv", 20)),
        ("a.csv", b"\xef\xbb\xbf" + table(";", "\r\n"), ("csv", 20)),
        ("a.tsv", table("\t"), ("csv", 20)),
        ("a.csv", b"prompt,completion\n" + b"Why?,Because.\n" * 3, ("csv", 3)),
        ("a.csv", b"text\n" + b"one line\n" * 3, ("csv", 3)),
    ],
)
def test_arrays_and_tables_are_read_as_items_whatever_their_sender_calls_them(
    tmp_path: Path, name: str, content: bytes, found: tuple[str, int], declared: Any
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert examine(path, format=declared, name=name) == (found[0], "text", found[1])


@pytest.mark.parametrize("declared", ["jsonl", "text", "json", None])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS[0], indent=2).encode()),
        ("a.json", "\n".join(json.dumps(row, indent=2) for row in ROWS).encode()),
        ("a.json", json.dumps({"data": ROWS}).encode()),
        ("a.json", json.dumps([row["text"] for row in ROWS]).encode()),
        ("a.json", json.dumps(ROWS).encode()[:-1]),
        ("a.json", json.dumps(ROWS).encode() + b"x"),
        ("a.json", json.dumps(ROWS).encode().replace(b"},", b"}")),
        ("a.json", json.dumps([*ROWS, {"score": 1}]).encode()),
        ("a.json", json.dumps([{"text": "x", "score": float("nan")}]).encode()),
        ("a.json", b'[{"text": "\\ud800"}]'),
        ("a.json", b'[{"text": ' + b"[" * 100_000),
        ("a.json", b'[{"text": "caf\xe9"}]'),
        ("a.csv", b"title,body\nx,y\n"),
        ("a.csv", b"text,n\nx\n"),
        ("a.csv", b'text,n\n"x,1\n'),
        ("a.csv", b"text,n\n,1\n"),
    ],
)
def test_what_is_neither_items_nor_text_is_refused(
    tmp_path: Path, name: str, content: bytes, declared: Any
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(DatasetInvalid):
        examine(path, format=declared, name=name)


@pytest.mark.parametrize("content", [lines(*ROWS), json.dumps(ROWS).encode(), table()])
def test_data_that_is_called_text_is_no_document_of_brackets(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(DatasetInvalid, match="begins like"):
        examine(path, format="text", name="notes.txt")
    assert examine(path, name="notes")[2] == 20


@pytest.mark.parametrize(
    ("row", "turns", "text"),
    [
        (
            {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]},
            [("system", "S"), ("user", "U")],
            "S\n\nU",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "U"}]}]},
            [("user", "U")],
            "U",
        ),
        (
            {"conversations": [{"from": "human", "value": "U"}, {"from": "gpt", "value": "A"}]},
            [("user", "U"), ("assistant", "A")],
            "U\n\nA",
        ),
        (
            {"prompt": "1 + 1 =", "completion": " 2"},
            [("user", "1 + 1 ="), ("assistant", " 2")],
            "1 + 1 = 2",
        ),
        (
            {
                "prompt": [{"role": "user", "content": "U"}],
                "completion": [{"role": "assistant", "content": "A"}],
            },
            [("user", "U"), ("assistant", "A")],
            "U\n\nA",
        ),
        (
            {"instruction": "I", "input": "X", "output": "O"},
            [("user", "I\n\nX"), ("assistant", "O")],
            "I\n\nX\n\nO",
        ),
        (
            {"instruction": "I", "output": "O"},
            [("user", "I"), ("assistant", "O")],
            "I\n\nO",
        ),
    ],
)
def test_conversations_are_read_as_what_they_are(
    tmp_path: Path, row: Any, turns: list[tuple[str, str]], text: str
) -> None:
    ((_, item),) = read(stored(tmp_path / "x", lines(row)))
    assert item == TextItem(text, tuple(turns))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": []}, "`messages` is no list"),
        ({"messages": "hello"}, "`messages` is no list"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "message 1: `role`"),
        ({"messages": [{"role": "user", "content": 3}]}, "message 1: `content`"),
        ({"messages": [{"role": "user", "content": " "}]}, "every message is empty"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "`content`"),
        ({"prompt": "x", "completion": ""}, "empty"),
        ({"prompt": "x", "completion": None}, "`prompt` is no list"),
        ({"instruction": 3, "output": "x"}, "are texts"),
        ({"prompt": "x"}, "not an object with"),
    ],
)
def test_a_conversation_that_cannot_be_read_is_refused(
    tmp_path: Path, row: Any, words: str
) -> None:
    with pytest.raises(DatasetInvalid, match=words):
        stored(tmp_path / "x", lines(row))


def test_a_long_array_is_read_in_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"text": "word " * 2000}] * 2000))
    tracemalloc.start()
    assert examine(path, name=path.name)[2] == 2000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000 < path.stat().st_size


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


@pytest.mark.parametrize("use", ["calibration", "evaluation", "both"])
def test_what_each_split_has_is_counted_as_it_is_shared_out(tmp_path: Path, use: Use) -> None:
    file = stored(tmp_path / "x", texts(200), use=use)
    assert file.splits is not None
    for split, size in file.splits.items():
        allowed = use == "both" or use.startswith(split)
        found = [item for _, item in items_of(file, split)] if allowed else []
        texts_of = [item.text for item in found if isinstance(item, TextItem)]
        assert size.items == len(found)
        assert size.bytes == sum(len(text.encode()) + 2 for text in texts_of)


@pytest.mark.parametrize(
    ("content", "calibration"),
    [
        (texts(100), {"layout": "rows", "samples": 101}),
        (texts(100), {"seq_len": 2048}),
        (texts(100), {"seq_len": 100, "samples": 20}),
        (lines(*CHATS), {"layout": "rows", "samples": 6}),
    ],
)
def test_an_upload_too_small_for_what_is_asked_fails_at_submit(
    tmp_path: Path, content: bytes, calibration: dict[str, Any]
) -> None:
    padded = content.replace(b"}", b', "origin": "%s"}' % (b"x" * 200))  # no text
    file = stored(
        tmp_path / "x", padded if b"messages" not in content else content, use="calibration"
    )
    model = ModelRef.model_validate("hf://a/b")
    asked = {"tasks": [FILE_A], "seq_len": 8, **calibration}
    fields = {"method": "wanda", "sparsity": 0.5, "evaluation": {"tasks": []}}

    def submit(calibration: dict[str, Any]) -> None:
        spec = PruneSpec.model_validate(fields | {"calibration": calibration})
        submission.check(model, spec, roots=[], tasks_dir=None, files={FILE_A: file})

    with pytest.raises(DatasetTooSmall):
        submit(asked)
    submit(asked | {"samples": 2, "seq_len": 8})


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
    submission.check(model, spec, roots=[], tasks_dir=None, files=files)


def test_the_same_bytes_neither_calibrate_nor_evaluate_under_two_names(tmp_path: Path) -> None:
    calibrating = stored(tmp_path / "c", texts(2000), use="calibration")
    evaluating = stored(tmp_path / "e", texts(2000), use="evaluation")
    with pytest.raises(DataLeakage) as caught:
        check({FILE_A: calibrating, FILE_B: evaluating})
    assert caught.value.pointer == "/prune/evaluation/tasks"
    check({FILE_A: calibrating, FILE_B: evaluating}, method="magnitude")
    other = evaluating.model_copy(update={"sha256": "1" * 64})
    check({FILE_A: calibrating, FILE_B: other})
