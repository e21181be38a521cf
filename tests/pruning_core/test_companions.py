"""What lies beside the weights: all that stock libraries read, and the licence asks for, is carried over."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers
from transformers import AutoTokenizer

from pruning_core.checkpoints.companions import VOCABULARIES, companions, is_companion, offered
from pruning_core.pipeline.phases import prune
from pruning_core.spec.prune import PruneSpec
from pruning_core.tokenizers.companions import write_companions
from pruning_core.tokenizers.kept import kept_ids
from tests import tiny

SPEC = PruneSpec.model_validate(
    {"method": "magnitude", "sparsity": 0.5, "evaluation": {"tasks": []}}
)
MODULES = [{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"idx": 2, "path": "2_Dense"}]


def declared() -> Iterator[str]:
    """Yield every name in the `VOCAB_FILES_NAMES` of stock transformers, read and not imported."""
    sources = Path(transformers.__file__).parent.glob("models/*/tokenization_*.py")
    for source in sources:
        text = source.read_text(encoding="utf-8")
        if "VOCAB_FILES_NAMES = {" not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VOCAB_FILES_NAMES":
                yield from ast.literal_eval(node.value).values()


def test_every_file_that_a_stock_tokenizer_declares_is_known() -> None:
    names = set(declared())
    assert {"vocab.txt", "spiece.model", "merges.txt"} < names
    assert {name for name in names if not is_companion(name)} == set()
    assert names - {"tokenizer_config.json"} <= set(VOCABULARIES)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A sentence embedder with a licence, named templates, and much that nobody reads."""
    folder = tiny.save(tmp_path / "model", "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "tools {{ messages }}"}
    tokenizer.save_pretrained(folder)
    for name in (
        *("LICENSE.md", "Notice.txt", "USE_POLICY.md", "LLAMA_LICENSE.txt", "preprocessor_config.json"),
        *("modeling_own.py", "LICENSE.py", "pytorch_model.bin", ".gitattributes", "training_args.bin"),
        *("consolidated.safetensors", "trainer_state.json", "config_sentence_transformers.json"),
    ):  # fmt: skip
        (folder / name).write_text("{}")
    (folder / "modules.json").write_text(json.dumps(MODULES))
    for name in ("1_Pooling/config.json", "2_Dense/model.safetensors", "original/params.json"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("{}")
    return folder


EMBEDDER = {
    "modules.json", "config_sentence_transformers.json", "1_Pooling/config.json", "2_Dense/model.safetensors",
}  # fmt: skip
KEPT = EMBEDDER | {
    "LICENSE.md", "Notice.txt", "USE_POLICY.md", "LLAMA_LICENSE.txt", "preprocessor_config.json",
    "additional_chat_templates/tool_use.jinja", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json",
    "generation_config.json",
}  # fmt: skip
LEFT = {
    "modeling_own.py", "LICENSE.py", "pytorch_model.bin", ".gitattributes", "training_args.bin",
    "consolidated.safetensors", "trainer_state.json", "original/",
}  # fmt: skip


def test_companions_are_carried_over_and_the_rest_is_named(model: Path, tmp_path: Path) -> None:
    report = prune(model, SPEC, tmp_path / "out")
    listed = {entry.path for entry in report.files}
    assert listed >= KEPT
    assert listed - KEPT == {"config.json", "model.safetensors", "README.md"}
    assert set(report.left_behind) == LEFT
    templates = AutoTokenizer.from_pretrained(tmp_path / "out" / "checkpoint").chat_template
    assert set(templates) == {"default", "tool_use"}
    assert "modeling_own.py" in (tmp_path / "out" / "report.html").read_text()
    card = (tmp_path / "out" / "checkpoint" / "README.md").read_text()
    assert "trainer\\_state.json" in card


def test_a_model_of_another_width_is_no_embedder(model: Path) -> None:
    assert set(companions(model)) == KEPT
    assert set(companions(model, embedder=False)) == KEPT - EMBEDDER


@pytest.mark.parametrize(
    "name",
    ["original/tokenizer.model", "a/b/LICENSE", "1_Dense/pytorch_model.bin", "1_Dense/own.py", "x.json",
     "additional_chat_templates/run.py", "NOTICE.sh", "onnx/config.json"],
)  # fmt: skip
def test_what_only_looks_like_one_is_none(name: str) -> None:
    assert not is_companion(name)


def test_names_are_told_as_text(tmp_path: Path) -> None:
    (tmp_path / "a\nb\u202e.json").write_text("")
    assert offered(tmp_path) == ("'a\\nb\\u202e.json'",)


def test_no_vocabulary_of_the_old_numbers_is_beside_a_reduced_one(
    model: Path, tmp_path: Path
) -> None:
    for name in set(VOCABULARIES) - {"tokenizer.json", "vocab.json"}:
        (model / name).write_text("old")
    target = tmp_path / "target"
    target.mkdir()
    write_companions(model, target, kept_ids(model, range(50)))
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert found & set(VOCABULARIES) == {"tokenizer.json", "merges.txt", "vocab.txt"}
    assert "old" not in (target / "vocab.txt").read_text().splitlines()
    assert found >= {"additional_chat_templates/tool_use.jinja", "LICENSE.md"}
