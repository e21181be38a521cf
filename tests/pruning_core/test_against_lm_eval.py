"""Our evaluation against lm-evaluation-harness and stock transformers: the same items, the same model, item by item."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from pruning_core.checkpoints.facts import inspect
from pruning_core.datasets.readings import questions, readings
from pruning_core.datasets.tasks import find, load
from pruning_core.evaluate.multiple_choice import accuracy, score
from pruning_core.evaluate.perplexity import perplexity
from pruning_core.model.streamed import StreamedModel
from pruning_core.system import device as devices
from pruning_core.text.question_tokens import encode
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.quality, pytest.mark.timeout(1500)]
ITEMS = 40
# The harness's own templates, over the fields of the slices: a question of boolq ends with its mark there, and a context
# of hellaswag holds label and text, cleaned.
CHOICES = {"doc_to_target": "answer", "doc_to_choice": "choices"}
TEMPLATES: dict[str, dict[str, str]] = {
    "arc_easy": {"doc_to_text": "Question: {{question}}\nAnswer:", **CHOICES},
    "boolq": {"doc_to_text": "{{context}}\nQuestion: {{question}}\nAnswer:", **CHOICES},
    "hellaswag": {"doc_to_text": "{{context}}", **CHOICES},
    "winogrande": {
        "doc_to_text": "answer",
        "doc_to_target": "{{question[question.index('_') + 1:].strip()}}",
        "doc_to_choice": "{{[question[:question.index('_')] + choices[0], question[:question.index('_')] + choices[1]]}}",
    },
}
Samples = dict[str, list[dict[str, Any]]]


def declare(folder: Path, data: Path) -> None:
    """Write the harness's task files; JSON is YAML too."""
    for name, template in TEMPLATES.items():
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data / name / "eval.jsonl")}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "metric_list": [{"metric": metric} for metric in ("acc", "acc_norm")],
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task | template), encoding="utf-8")


@pytest.fixture(scope="module")
def theirs(smollm2: Path, shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Samples:
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip('lm_eval is not installed: pip install "secateur[eval]"')
    folder = tmp_path_factory.mktemp("lm_eval")
    declare(folder, shared_dir / "data")
    module = "tests.pruning_core.lm_eval_samples"
    arguments = [str(smollm2.resolve()), str(folder), str(ITEMS), *TEMPLATES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        patch.setenv("HF_HOME", str(folder / "hub"))
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", module, *arguments],
            cwd=REPOSITORY,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    found: Samples = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def model(smollm2: Path) -> StreamedModel:
    return StreamedModel(smollm2, inspect(smollm2), devices.pick())


@pytest.mark.parametrize("task", TEMPLATES)
def test_multiple_choice_agrees_with_lm_eval_item_by_item(
    task: str, theirs: Samples, model: StreamedModel, smollm2: Path, shared_dir: Path
) -> None:
    data = load(find(task, shared_dir / "data"), "eval", cache_dir=None)
    encoded = encode(
        AutoTokenizer.from_pretrained(smollm2),
        questions(data)[:ITEMS],
        model.config.max_position_embeddings,
    )
    with torch.no_grad():
        scores = score(model, encoded)
    expected = theirs[task]
    assert len(scores) == len(expected) == ITEMS
    for ours, item in zip(scores, expected, strict=True):
        # The same float32 arithmetic in another order; the largest difference found on a CPU was 6e-5.
        assert ours == pytest.approx(item["scores"], rel=1e-5, abs=5e-4)
    for measure, normalised in (("acc", False), ("acc_norm", True)):
        answered = accuracy(encoded, scores, normalised=normalised)
        assert answered == [item[measure] == 1.0 for item in expected], measure


def test_perplexity_agrees_with_a_plain_loop_over_the_stock_model(
    model: StreamedModel, smollm2: Path, shared_dir: Path
) -> None:
    data = load(find("wikitext2", shared_dir / "data"), "eval", cache_dir=None)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    ids = tokenizer(
        "\n\n".join([item.text for item in readings(data, answers=True)][:40]), verbose=False
    )["input_ids"]
    windows = torch.tensor(ids[:1024]).view(2, 512)
    stock: Any = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    with torch.no_grad():
        losses = [
            functional.cross_entropy(stock(window[None]).logits[0, :-1], window[1:])
            for window in windows
        ]
        found = perplexity(model, windows)
    expected = math.exp(torch.stack(losses).double().mean().item())
    assert found == pytest.approx(expected, rel=1e-4)
