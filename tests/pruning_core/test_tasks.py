"""The task catalogue: shipped declarations, one file or one folder as a new task, the hub's columns, every refusal."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from pruning_core.admission import submission
from pruning_core.datasets import hub_data, readings, tasks
from pruning_core.datasets.declaration import Hub
from pruning_core.datasets.items import ChoiceItem
from pruning_core.datasets.readings import Question
from pruning_core.datasets.tasks import SPLITS
from pruning_core.datasets.uploads import UserFile
from pruning_core.errors import DatasetInvalid, DatasetNotFound, PruningError
from pruning_core.spec.model import ModelRef
from pruning_core.spec.prune import PruneSpec
from tests.conftest import REPOSITORY
from tests.pruning_core.hub_stand_in import COMMIT, serving
from tests.pruning_core.hub_stand_in import Hub as HubServer

SHIPPED = tasks.catalogue(None)
HUB_TASKS = [name for name, task in SHIPPED.items() if task.origin == "hub"]
CHOICE_TASKS = [name for name, task in SHIPPED.items() if task.kind == "multiple_choice"]
UPLOAD = "file:file_01JDA2M9Q4XW5S8ZK6B7C3D1EF"
QUIZ = '{"question": "2 + 2", "choices": ["3", "4"], "answer": 1, "hint": "even"}\n'
DECLARED = """kind = "multiple_choice"
description = "Sums."
language = "de"
licence = "CC0-1.0"

[template]
prompt = "{{ question }} ({{ hint }}) ="
answer = " {{ choice }}"
"""


def folder_of(root: Path, name: str, **splits: str) -> Path:
    folder = root / name
    folder.mkdir(exist_ok=True)
    for split, text in splits.items():
        (folder / f"{split}.jsonl").write_text(text)
    return root


def loaded(name: str, split: tasks.Split, root: Path | None) -> tasks.Data:
    return tasks.load(tasks.find(name, root), split, cache_dir=None)


def asked(name: str, root: Path) -> list[Question]:
    return readings.questions(loaded(name, "eval", root))


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(PruningError) as refused:
        call()
    assert refused.value.error_class == "user"
    return refused.value.message


# What ships


def test_every_shipped_declaration_is_valid_and_says_what_it_is() -> None:
    files = {path.stem for path in Path(tasks.__file__).parent.glob("catalogue/*.toml")}
    assert set(SHIPPED) == files >= {"wikitext2", "c4", "ptb", "boolq", "rte", "mmlu", "self"}
    for task in SHIPPED.values():
        assert task.declaration.description
        assert task.declaration.licence or task.origin == "model"
        assert task.declaration.template or task.kind == "text"


def test_every_shipped_task_has_its_row_in_the_page() -> None:
    page = (REPOSITORY / "docs" / "tasks.md").read_text(encoding="utf-8")
    for name, task in SHIPPED.items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert task.declaration.description in row


def texts(data: tasks.Data, *, answers: bool = True) -> list[str]:
    return [item.text for item in readings.readings(data, answers=answers)]


def turns(data: tasks.Data, *, answers: bool = True) -> list[list[dict[str, str]]]:
    read = readings.readings(data, answers=answers)
    return [[turn._asdict() for turn in item.turns] for item in read]


def test_the_built_in_task_is_split_by_topic_without_overlap() -> None:
    calibration, evaluation = (texts(loaded("python_docs", split, None)) for split in SPLITS)
    assert not set(calibration) & set(evaluation)
    assert sum(map(len, evaluation)) > 50_000
    assert SHIPPED["python_docs"].bytes("calibration") == sum(
        len(text.encode()) for text in calibration
    )


def test_the_model_s_own_text_is_nothing_to_load() -> None:
    task = tasks.find("self", None)
    assert (task.origin, task.bytes("calibration")) == ("model", None)
    assert "sampled" in refusal(lambda: tasks.load(task, "calibration", cache_dir=None))


def test_a_declared_task_without_data_says_where_it_belongs() -> None:
    with pytest.raises(DatasetNotFound, match=r"economics_text/calibration\.jsonl"):
        tasks.find("economics_text", None)


def test_an_unknown_task_suggests_a_near_one() -> None:
    with pytest.raises(DatasetNotFound) as refused:
        tasks.find("wikitext", None)
    assert refused.value.suggestions[0] == "did you mean `wikitext2`?"


@pytest.mark.parametrize("name", CHOICE_TASKS)
def test_a_shipped_declaration_renders_the_local_slice(name: str, shared_dir: Path) -> None:
    if not (shared_dir / "data" / name).is_dir():
        pytest.skip(f"no slice of {name} in the shared folder")
    for split in SPLITS:
        data = loaded(name, split, shared_dir / "data")
        assert data.task.origin == "folder"
        assert data.task.declaration == SHIPPED[name].declaration
        assert len(readings.questions(data)) == len(data.items) > 100


# What lm-evaluation-harness 0.4.13 would ask, written out by hand: prompts and continuations.
BY_HAND: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "boolq": (
        {
            "context": "Ice is frozen water.",
            "question": "is ice water?",
            "choices": ["no", "yes"],
            "answer": 1,
        },
        ["Ice is frozen water.\nQuestion: is ice water?\nAnswer:"],
        [" no", " yes"],
    ),
    "arc_easy": (
        {"question": "What melts?", "choices": ["ice", "rock", "air"], "answer": 0},
        ["Question: What melts?\nAnswer:"],
        [" ice", " rock", " air"],
    ),
    "winogrande": (
        {
            "question": "Ann thanked Eve because _ had helped.",
            "choices": ["Ann", "Eve"],
            "answer": 1,
        },
        ["Ann thanked Eve because Ann", "Ann thanked Eve because Eve"],
        [" had helped."],
    ),
    "hellaswag": (
        {"context": "High jump: A man runs. He", "choices": ["jumps.", "flies."], "answer": 0},
        ["High jump: A man runs. He"],
        [" jumps.", " flies."],
    ),
    "piqa": (
        {
            "question": "Clean wax.",
            "choices": ["Wipe when hard.", "Wipe when soft."],
            "answer": 1,
        },
        ["Question: Clean wax.\nAnswer:"],
        [" Wipe when hard.", " Wipe when soft."],
    ),
    "openbookqa": (
        {"question": "Ice in sunlight will", "choices": ["shrink", "grow"], "answer": 0},
        ["Ice in sunlight will"],
        [" shrink", " grow"],
    ),
    "mmlu": (
        {
            "question": " Who ruled Rome? ",
            "choices": ["Nero", "Cnut", "Ine", "Otto"],
            "answer": 0,
            "subject": "world_history",
        },
        [
            "The following are multiple choice questions (with answers) about world history.\n\n"
            "Who ruled Rome?\nA. Nero\nB. Cnut\nC. Ine\nD. Otto\nAnswer:"
        ],
        [" A", " B", " C", " D"],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_prompts_are_those_of_the_harness(name: str, tmp_path: Path) -> None:
    item, prompts, continuations = BY_HAND[name]
    (question,) = asked(name, folder_of(tmp_path, name, eval=json.dumps(item)))
    count = len(item["choices"])
    assert list(question.prompts) == prompts * (count // len(prompts))
    assert list(question.continuations) == continuations * (count // len(continuations))
    assert question.answer == item["answer"]


# A new task


def test_a_task_is_one_file_beside_its_data(tmp_path: Path) -> None:
    (tmp_path / "sums.toml").write_text(DECLARED)
    folder_of(tmp_path, "sums", calibration=QUIZ, eval=QUIZ)
    data = loaded("sums", "calibration", tmp_path)
    assert (data.task.origin, data.task.declaration.language) == ("folder", "de")
    assert readings.questions(data) == [
        Question("sums/calibration.jsonl, line 1", ("2 + 2 (even) =",) * 2, (" 3", " 4"), answer=1)
    ]
    assert data.digest == loaded("sums", "eval", tmp_path).digest
    assert data.digest.startswith("sha256:")


def test_a_folder_alone_is_a_task(tmp_path: Path) -> None:
    folder_of(tmp_path, "mine", calibration='{"id": "1", "text": "one"}\n\n{"text": "two"}\n')
    folder_of(tmp_path, "mine", eval='{"text": "three"}\n')
    assert texts(loaded("mine", "calibration", tmp_path)) == ["one", "two"]
    assert texts(loaded("mine", "eval", tmp_path)) == ["three"]
    assert tasks.find("mine", tmp_path).bytes("eval") == 18


def test_a_folder_of_questions_is_asked_in_the_usual_way(tmp_path: Path) -> None:
    lines = '{"context": "C.", "question": "Q?", "choices": ["a", "b"], "answer": 0}\n' + QUIZ
    first, second = asked("quiz", folder_of(tmp_path, "quiz", eval=lines))
    assert first.prompts[0] == "C.\nQuestion: Q?\nAnswer:"
    assert second.prompts[0] == "Question: 2 + 2\nAnswer:"


def test_a_folder_wins_over_the_hub_and_the_built_in_task(tmp_path: Path) -> None:
    folder_of(tmp_path, "c4", calibration='{"text": "mine"}')
    folder_of(tmp_path, "python_docs", calibration='{"text": "mine"}')
    for name in ("c4", "python_docs"):
        assert texts(loaded(name, "calibration", tmp_path)) == ["mine"]
    assert "c4" in refusal(lambda: loaded("c4", "eval", tmp_path))
    assert tasks.find("c4", tmp_path).bytes("eval") == 0


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    folder_of(tmp_path, "mine", calibration='{"text": "four"}\n' * 10)
    task = tasks.find("mine", tmp_path)
    assert len(tasks.load(task, "calibration", cache_dir=None, limit_bytes=9).items) == 3


def test_questions_as_texts_and_as_turns(tmp_path: Path) -> None:
    data = loaded("quiz", "eval", folder_of(tmp_path, "quiz", eval=QUIZ))
    prompt = "Question: 2 + 2\nAnswer:"
    assert texts(data) == [f"{prompt} 4"]
    assert texts(data, answers=False) == [prompt]
    user, assistant = (
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": "4"},
    )
    assert turns(data) == [[user, assistant]]
    assert turns(data, answers=False) == [[user]]


# What is wrong with a task


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"text": 3}',
        '{"text": " "}',
        '{"other": "x"}',
        "\x80",
        QUIZ,
    ],
)
def test_a_malformed_line_is_named(line: str, tmp_path: Path) -> None:
    folder_of(tmp_path, "mine")
    (tmp_path / "mine" / "calibration.jsonl").write_bytes(
        b'{"text": "x"}\n' + line.encode("latin-1")
    )
    with pytest.raises(DatasetInvalid, match=r"mine/calibration\.jsonl, line 2"):
        loaded("mine", "calibration", tmp_path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"answer": 2}, "2 choices"),
        ({"answer": "1"}, "whole number"),
        ({"choices": ["4", "4 "]}, "twice"),
        ({"choices": ["4"]}, "two texts"),
        ({"question": ""}, "neither"),
    ],
)
def test_a_question_without_one_right_answer_is_named(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    line = json.dumps(json.loads(QUIZ) | changes)
    folder_of(tmp_path, "quiz", eval=QUIZ + line)
    message = refusal(lambda: loaded("quiz", "eval", tmp_path))
    assert message.startswith("quiz/eval.jsonl, line 2")
    assert told in message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind =", "not TOML"),
        ('kind = "text"', "`description`"),
        ('kind = "poem"\ndescription = "x"', "`kind`"),
        (DECLARED + 'colour = "red"', "`template.colour`"),
        (DECLARED.replace("{{ hint }}", "{{ hint"), "`template.prompt`"),
        (DECLARED.replace("multiple_choice", "text"), "multiple_choice"),
        (
            DECLARED + '[hub]\ndataset = "hf://datasets/a/b"\ncalibration = ["a.parquet"]\n'
            'evaluation = ["a.csv"]\n[hub.item]\nchoices = "a"\nanswer = "b"',
            "`hub.evaluation.0`",
        ),
        (
            DECLARED + '[hub]\ndataset = "hf://datasets/a/b"\ncalibration = ["a.parquet"]\n'
            'evaluation = ["a.parquet"]\n[hub.item]\nchoices = "a b"\nanswer = "b"',
            "`hub.item`",
        ),
        (
            DECLARED + '[hub]\ndataset = "hf://datasets/a/b"\ncalibration = ["a.parquet"]\n'
            'evaluation = ["a.parquet"]\n[hub.item]\ntext = "a"',
            "answer, choices",
        ),
    ],
)
def test_an_invalid_declaration_names_file_and_key_and_hides_no_other_task(
    text: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sums.toml").write_text(text)
    message = refusal(lambda: tasks.find("sums", tmp_path))
    assert message.startswith("sums.toml")
    assert told in message
    assert set(tasks.catalogue(tmp_path)) == set(SHIPPED)
    assert "sums.toml" in caplog.text


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ question }} {{ colour }} {{ choice }}", "'colour' is undefined"),
        ("{{ answer }} {{ choice }}", "'answer' is undefined"),
        ("{{ question }}", "two choices the same text"),
        ("{{ '' }}", "gives no text"),
        ("{{ question.__class__ }}", "unsafe"),
        ("{{ choices.append(1) }}", "no attribute"),
    ],
)
def test_a_template_that_does_not_fit_an_item_names_its_line(
    template: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "sums.toml").write_text(DECLARED.replace(" {{ choice }}", template))
    data = loaded("sums", "eval", folder_of(tmp_path, "sums", eval=QUIZ))
    message = refusal(lambda: readings.questions(data))
    assert message.startswith("sums/eval.jsonl, line 1: ")
    assert told in message


# The hub: rows in the columns that the datasets have, and the normal fields that they mean

HELLASWAG = {
    "activity_label": "Baking",
    "ctx_a": "[header] How to bake [title] Preheat.  ",
    "ctx_b": "the oven",
    "endings": ["[step] is hot. [substeps] Wait.", "is [title] cold.", "is shut.", "sings."],
    "label": "1",
}
MMLU_ROW = {"question": "Q?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 3}
LABELLED = {"text": ["p", "q", "r"], "label": ["1", "2", "3"]}
ROWS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "wikitext2": (
        [{"text": ""}, {"text": " = A = \n"}, {"text": ""}],
        [{"text": "\n\n = A = \n\n\n"}],
    ),
    "c4": ([{"text": "A page.", "url": "u", "timestamp": "t"}], [{"text": "A page."}]),
    "ptb": ([{"sentence": "one <unk>"}, {"sentence": "two"}], [{"text": "one <unk> two"}]),
    "law_contracts": ([{"text": "A clause.", "label": 3}], [{"text": "A clause."}]),
    "law_opinions": ([{"text": "An opinion."}], [{"text": "An opinion."}]),
    "medicine_text": (
        [{"question": "Q?", "answer": None}, {"question": "Q?", "answer": "A."}],
        [{"text": "Q?\nA."}],
    ),
    "finance_text": ([{"section_7": ""}, {"section_7": "Sales."}], [{"text": "Sales."}]),
    "boolq": (
        [{"question": "is it", "passage": "It is.", "idx": 0, "label": 1}],
        [{"context": "It is.", "question": "is it?", "choices": ["no", "yes"], "answer": 1}],
    ),
    "rte": (
        [{"sentence1": "It is.", "sentence2": "It was.", "label": 1, "idx": 0}],
        [{"context": "It is.", "question": "It was.", "choices": ["True", "False"], "answer": 1}],
    ),
    "hellaswag": (
        [HELLASWAG],
        [
            {
                "context": "Baking: How to bake. Preheat.  The oven",
                "choices": [" is hot. Wait.", "is. cold.", "is shut.", "sings."],
                "answer": 1,
            }
        ],
    ),
    "winogrande": (
        [{"sentence": "A saw B as _ went.", "option1": "A", "option2": "B", "answer": "2"}],
        [{"question": "A saw B as _ went.", "choices": ["A", "B"], "answer": 1}],
    ),
    "arc_easy": (
        [{"id": "x", "question": "Q?", "choices": LABELLED, "answerKey": "2"}],
        [{"question": "Q?", "choices": ["p", "q", "r"], "answer": 1}],
    ),
    "openbookqa": (
        [{"id": "x", "question_stem": "Q", "choices": LABELLED, "answerKey": "3"}],
        [{"question": "Q", "choices": ["p", "q", "r"], "answer": 2}],
    ),
    "piqa": (
        [
            {"goal": "Same.", "sol1": "a", "sol2": "a", "label": 0},
            {"goal": "Go.", "sol1": "a", "sol2": "b", "label": 0},
        ],
        [{"question": "Go.", "choices": ["a", "b"], "answer": 0}],
    ),
    "mmlu": ([MMLU_ROW], [MMLU_ROW]),
    "medqa": (
        [
            {"id": "1", "sent1": "Q?", "sent2": ""}
            | {f"ending{number}": f"e{number}" for number in range(4)}
            | {"label": 2}
        ],
        [{"question": "Q?", "choices": ["e0", "e1", "e2", "e3"], "answer": 2}],
    ),
    "medmcqa": (
        [{"question": "Q?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 3}],
        [{"question": "Q?", "choices": ["a", "b", "c", "d"], "answer": 3}],
    ),
    "pubmedqa": (
        [
            {
                "pubid": 1,
                "question": "Q?",
                "context": {"contexts": ["One.", "Two."], "labels": ["A", "B"]},
                "final_decision": "no",
            }
        ],
        [
            {
                "context": "One.\nTwo.",
                "question": "Q?",
                "choices": ["yes", "no", "maybe"],
                "answer": 1,
            }
        ],
    ),
    "casehold": (
        [{"context": "See (<HOLDING>).", "endings": ["a", "b", "c", "d", "e"], "label": 4}],
        [
            {
                "context": "See ([Masked Holding]).",
                "question": "Which holding does [Masked Holding] stand for?",
                "choices": ["a", "b", "c", "d", "e"],
                "answer": 4,
            }
        ],
    ),
}
SAME_COLUMNS = {"arc_challenge": "arc_easy"} | {
    f"mmlu_{field}": "mmlu" for field in ("law", "medicine", "economics")
}
CALL = """
import json, sys
from pathlib import Path
from pruning_core.errors import PruningError
from pruning_core.datasets import readings, tasks
found = {}
for name, split in json.loads(sys.argv[3]):
    try:
        task = tasks.find(name, Path(sys.argv[1]))
        data = tasks.load(task, split, cache_dir=Path(sys.argv[2]))
        items = [tasks._content(item) for _, item in data.items]
        asked = [(q.prompts, q.continuations, q.answer) for q in readings.questions(data)]
        found[f"{name}/{split}"] = {"items": items, "revision": data.revision, "asked": asked}
    except PruningError as error:
        found[f"{name}/{split}"] = error.payload()
print(json.dumps(found))
"""


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)


def rows_of(name: str) -> list[dict[str, Any]]:
    return ROWS[SAME_COLUMNS.get(name, name)][0]


def expected(name: str, hub: Hub) -> list[dict[str, Any]]:
    return ROWS[SAME_COLUMNS.get(name, name)][1] * len(hub.evaluation)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    root = tmp_path_factory.mktemp("datasets")
    repos: dict[str, Path] = {}
    for name in HUB_TASKS:
        declared = SHIPPED[name].declaration.hub
        assert declared is not None
        repos[f"datasets/{declared.repo}"] = root / declared.repo
        for pattern in (*declared.calibration, *declared.evaluation):
            write(root / declared.repo / pattern.replace("*", "0000"), rows_of(name))
    repos["datasets/org/bad"] = root / "bad"
    write(root / "bad" / "good.jsonl", [{"text": "x"}])
    write(root / "bad" / "key.jsonl", [{"text": "x"}, {"title": "x"}])
    (root / "bad" / "line.jsonl").write_text('{"text": "x"}\n{"text"\n')
    (root / "bad" / "torn.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 99)[:-20])
    (root / "bad" / "bomb.jsonl.gz").write_bytes(
        gzip.compress(b'{"text": "x"}\n' + bytes((1 << 24) - 100))
    )
    (root / "bad" / "lines.json.gz").write_bytes(gzip.compress((b" " * (1 << 20) + b"\n") * 16))
    (root / "bad" / "torn.parquet").write_bytes(b"PAR1 and no more")
    with serving(repos) as server:
        yield server


def fetched(
    url: str, wanted: list[tuple[str, str]], root: Path, **environment: str
) -> dict[str, Any]:
    """Load in a fresh process, because the hub's address is read at import."""
    settings = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": f"{root}/home"}
    told = [f"{name}={value}" for name, value in (settings | environment).items()]
    done = subprocess.run(
        ["env", *told, sys.executable, "-c", CALL, str(root), f"{root}/cache", json.dumps(wanted)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def from_hub(
    hub: HubServer, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, dict[str, Any]]:
    wanted = [(name, split) for name in HUB_TASKS for split in SPLITS]
    return fetched(hub.url, wanted, tmp_path_factory.mktemp("fetched"))


@pytest.mark.parametrize("name", HUB_TASKS)
def test_hub_rows_are_the_items_that_a_folder_would_hold(
    name: str, from_hub: Mapping[str, dict[str, Any]], tmp_path: Path
) -> None:
    declared = SHIPPED[name].declaration.hub
    assert declared is not None
    parts = [from_hub[f"{name}/{split}"] for split in SPLITS]
    found = [part for part in parts if "items" in part]
    if declared.calibration == declared.evaluation:
        assert sum(len(part["items"]) for part in found) == len(expected(name, declared))
    else:
        assert len(found) == 2
    assert {part["revision"] for part in found} == {COMMIT}
    lines = "\n".join(map(json.dumps, expected(name, declared)))
    data = loaded(name, "eval", folder_of(tmp_path, name, eval=lines))
    local = [
        item.fields if isinstance(item, ChoiceItem) else {"text": item.text}
        for _, item in data.items
    ]
    assert [dict(item) | known(item) for item in found[-1]["items"]] == [
        dict(item) | known(item) for item in local
    ]
    questions = [
        [list(q.prompts), list(q.continuations), q.answer] for q in readings.questions(data)
    ]
    assert found[-1]["asked"] == questions


def known(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that an item may leave out."""
    return {} if "text" in item else {"question": item["question"], "context": item["context"]}


def test_a_fetched_dataset_is_not_fetched_again(hub: HubServer, tmp_path: Path) -> None:
    fetched(hub.url, [("boolq", "eval")], tmp_path)
    count = len(hub.fetched)
    assert "items" in fetched(hub.url, [("boolq", "eval")], tmp_path)["boolq/eval"]
    assert len(hub.fetched) == count


BAD_HUB = """kind = "text"
description = "Bad."
[hub]
dataset = "hf://datasets/{repo}"
revision = "{revision}"
calibration = ["{file}"]
evaluation = ["good.jsonl"]
[hub.item]
text = "text"
"""


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"repo": "org/nowhere"}, "DATASET_NOT_FOUND", "hf://datasets/org/nowhere"),
        ({"revision": "nowhere"}, "DATASET_NOT_FOUND", "no revision 'nowhere'"),
        ({"file": "none-*.parquet"}, "DATASET_NOT_FOUND", "no file none-*.parquet"),
        ({"repo": "org/gated"}, "DATASET_UNREACHABLE", "HF_TOKEN"),
        ({"file": "key.jsonl"}, "DATASET_INVALID", "org/bad/key.jsonl, line 2: hub.item `text`"),
        ({"file": "line.jsonl"}, "DATASET_INVALID", "org/bad/line.jsonl, line 2"),
        ({"file": "torn.jsonl.gz"}, "DATASET_INVALID", "org/bad/torn.jsonl.gz, line"),
        ({"file": "bomb.jsonl.gz"}, "DATASET_INVALID", "a file may grow 1000 times"),
        ({"file": "lines.json.gz"}, "DATASET_INVALID", "a file may grow 1000 times"),
        ({"file": "torn.parquet"}, "DATASET_INVALID", "org/bad/torn.parquet, after row 0"),
    ],
)
def test_what_the_hub_holds_wrongly_is_named(
    changes: dict[str, str], code: str, told: str, hub: HubServer, tmp_path: Path
) -> None:
    fields = {"repo": "org/bad", "revision": "main", "file": "good.jsonl"} | changes
    (tmp_path / "bad.toml").write_text(BAD_HUB.format(**fields))
    payload = fetched(hub.url, [("bad", "calibration")], tmp_path)["bad/calibration"]
    assert payload["code"] == code
    assert told in payload["detail"]


@pytest.mark.parametrize(
    "environment", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["no answer", "switched off"]
)
def test_a_hub_that_cannot_be_reached_is_worth_another_try(
    environment: dict[str, str], tmp_path: Path
) -> None:
    payload = fetched("http://127.0.0.1:9", [("c4", "eval")], tmp_path, **environment)["c4/eval"]
    assert (payload["code"], payload["retryable"]) == ("DATASET_UNREACHABLE", True)
    assert "hf://datasets/allenai/c4" in payload["detail"]


def test_a_corpus_is_read_no_further_than_wanted(tmp_path: Path) -> None:
    path = tmp_path / "endless.jsonl"
    path.write_text('{"text": "four"}\n' * 3 + "torn")
    rows = hub_data._json_lines(path, "endless.jsonl")
    assert [row["text"] for _, (_, row) in zip(range(3), rows, strict=False)] == ["four"] * 3


# Refused at submit


def admit(
    files: Mapping[str, UserFile] = tasks.NO_FILES, root: Path | None = None, **prune: Any
) -> None:
    spec = PruneSpec.model_validate({"method": "wanda", "sparsity": 0.5} | prune)
    model = ModelRef(ref="hf://org/model")
    submission.check(model, spec, roots=[], tasks_dir=root, files=files)


def code_of(
    files: Mapping[str, UserFile] = tasks.NO_FILES, root: Path | None = None, **prune: Any
) -> str:
    with pytest.raises(PruningError) as refused:
        admit(files, root, **prune)
    return refused.value.code


def upload(use: str, kind: str = "text") -> Mapping[str, UserFile]:
    return {
        UPLOAD: UserFile.model_validate(
            {
                "path": "/nowhere",
                "format": "jsonl",
                "kind": kind,
                "use": use,
                "items": 9,
                "bytes": 1 << 20,
                "sha256": "0" * 64,
            }
        )
    }


def test_hub_tasks_and_questions_calibrate_and_are_evaluated(tmp_path: Path) -> None:
    folder_of(tmp_path, "quiz", calibration=QUIZ, eval=QUIZ)
    admit(root=tmp_path, calibration=["quiz", "c4"])
    rows = {"tasks": ["quiz"], "layout": "rows", "samples": 60000, "seq_len": 512}
    admit(root=tmp_path, calibration=rows)


def test_text_too_short_for_its_windows_is_refused_where_windows_are_cut(tmp_path: Path) -> None:
    folder_of(
        tmp_path, "mine", calibration='{"text": "short"}', eval='{"text": "%s"}' % ("x" * 999)
    )
    calibration = {"tasks": ["mine", "c4"], "samples": 8, "seq_len": 64}
    assert code_of(root=tmp_path, calibration=calibration) == "DATASET_TOO_SMALL"
    admit(root=tmp_path, calibration=calibration | {"layout": "rows"})


@pytest.mark.parametrize("prune", [{"calibration": ["c4"]}, {"evaluation": {"tasks": ["boolq"]}}])
def test_a_hub_that_is_switched_off_is_said_at_submit(
    prune: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    admit(**prune)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert code_of(**prune) == "DATASET_UNREACHABLE"


def test_the_model_s_own_text_calibrates_and_is_not_evaluated() -> None:
    admit(calibration=["self"])
    assert code_of(evaluation={"tasks": ["self"]}) == "DATASET_INVALID"


def test_tasks_of_the_harness_are_not_looked_up() -> None:
    admit(evaluation={"harness": "lm_eval", "tasks": ["arc_easy", "nowhere_to_be_found"]})


def test_an_upload_keeps_to_the_use_that_its_sender_gave() -> None:
    admit(upload("both"), calibration=[UPLOAD])
    admit(upload("calibration"), calibration=[UPLOAD])
    admit(upload("evaluation"), evaluation={"tasks": [UPLOAD]})
    assert code_of(upload("evaluation"), calibration=[UPLOAD]) == "DATASET_NOT_FOUND"
    assert code_of(upload("calibration"), evaluation={"tasks": [UPLOAD]}) == "DATA_LEAKAGE"
    assert code_of(calibration=[UPLOAD]) == "DATASET_NOT_FOUND"


def test_an_upload_that_only_calibrates_is_not_evaluated_by_default() -> None:
    spec = PruneSpec.model_validate(
        {"method": "wanda", "sparsity": 0.5, "calibration": [UPLOAD, "c4"]}
    )
    assert tasks.evaluated(spec, upload("calibration")) == ("c4",)
    assert tasks.evaluated(spec, upload("both")) == (UPLOAD, "c4")
    gates = [{"metric": f"{UPLOAD}.ppl", "max": 9}]
    refused = code_of(upload("calibration"), calibration=[UPLOAD, "c4"], gates=gates)
    assert refused == "DATASET_INVALID"


def test_a_gate_on_a_figure_that_the_task_has_not_is_refused() -> None:
    gates = [{"metric": "boolq.ppl", "max": 9}]
    assert code_of(evaluation={"tasks": ["boolq"]}, gates=gates) == "DATASET_INVALID"
