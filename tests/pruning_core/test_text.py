"""Text at a border: what is refused on the way in, and how it goes out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pruning_core.checkpoints import config as configs
from pruning_core.errors import ModelInvalid
from pruning_core.printable import plain, shown, shown_document
from pruning_core.reporting import card, licence
from pruning_core.spec.base import Frozen
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.recovery import Recovery

HOSTILE = ["\x1b[2J", "a\rb", "\x9b1m", "\u202egnp.exe", "\u2066", "\u200b", "\ud800", "\U000e0041"]


@pytest.mark.parametrize("text", [*HOSTILE, "a\nb", "a\tb", "\0", "\u2029"], ids=ascii)
def test_hidden_text_is_refused_and_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"U\+[0-9A-F]{4,6} is not taken"):
        plain(text)
    assert "\ufffd" in shown(text) or text in ("a\nb", "a\tb")


@pytest.mark.parametrize("text", ["", "Grüße", "שלום", "مرحبا", "日本", "👩\u200d🚀", "a\u00a0b"])
def test_text_of_any_language_passes(text: str) -> None:
    assert plain(text) == shown(text) == text


@given(st.text(st.characters(codec=None, categories=None)), st.integers(0, 20) | st.none())
def test_what_is_shown_is_plain_and_bounded(text: str, limit: int | None) -> None:
    told = shown(text, limit)
    plain(told.replace("\n", "").replace("\t", ""))
    assert limit is None or len(told) <= limit + len(f" ... ({len(text):,} more characters)")


def test_what_is_cut_off_is_counted() -> None:
    assert shown("x" * 3000, 2000) == "x" * 2000 + " ... (1,000 more characters)"


def test_documents_are_shown_whole() -> None:
    told = shown_document({"a\x1b": ["\ud800", {"b": "\u202e"}], "n": 1.5, "t": ("\0",)}, 9)
    assert told == {"a\ufffd": ["\ufffd", {"b": "\ufffd"}], "n": 1.5, "t": ["\ufffd"]}


def test_errors_are_bounded_and_visible() -> None:
    error = ModelInvalid(
        "tensor \ud800\x1b[2J" + "x" * 680_063, suggestions=("y" * 9000,), pointer="/model"
    )
    payload = error.payload()
    assert len(json.dumps(payload, ensure_ascii=False).encode()) < 5000
    assert payload["detail"] == str(error)
    assert payload["detail"].startswith("tensor \ufffd\ufffd[2Jxx")


HUGE = [10**4000, -(10**400), "1", "0.5", [1], {"a": 1}, float("nan"), float("inf")]


def vocabulary() -> list[type[Frozen]]:
    """Return what requests are made of: reports come from our own workers."""
    found: list[type[Frozen]] = [Frozen]
    for one in found:
        found += [sub for sub in one.__subclasses__() if sub not in found]
    return [
        one
        for one in found
        if one.__module__.startswith("pruning_core.spec.")
        and not one.__module__.startswith(
            ("pruning_core.spec.report", "pruning_core.spec.progress")
        )
        and not one.__name__.startswith("Recovery")
    ] + [Recovery]


def numbers(model: type[Frozen]) -> list[str]:
    """Return the fields that hold one number or none."""
    return [
        name
        for name, field in model.model_fields.items()
        if {int, float} & {field.annotation, *get_args(field.annotation)}
    ]


@pytest.mark.parametrize("model", vocabulary(), ids=lambda model: model.__name__)
def test_numbers_are_numbers(model: type[Frozen]) -> None:
    for name in numbers(model):
        for value in (*HUGE, True):
            with pytest.raises(ValidationError) as caught:
                model.model_validate({name: value})
            assert name in {error["loc"][0] for error in caught.value.errors()}, (name, value)


def test_lists_are_bounded_before_their_items() -> None:
    with pytest.raises(ValidationError) as caught:
        PruneSpec.model_validate({"method": "wanda", "gates": [{"x": 1}] * 100_000})
    assert caught.value.error_count() == 1
    assert "gates: 100000 items; 64 are allowed" in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        PruneSpec.model_validate({f"k{number}": 1 for number in range(100_000)})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["Llama\ud800"]},
        {"architectures": ["Llama\u202eForCausalLM"]},
        {"architectures": ["\x1b[2J"]},
        {"architectures": ["A" * 680_063]},
        {"architectures": ["javascript:alert(1)"]},
        {"pad\ud800": 1},
        {"torch_dtype": "\udfff"},
    ],
    ids=ascii,
)
def test_a_configuration_with_hidden_text_is_refused(changes: dict[str, object]) -> None:
    config = {"model_type": "llama", "hidden_size": 8, **changes}
    with pytest.raises(ModelInvalid) as caught:
        configs.architecture(configs.parse_config(json.dumps(config).encode()))
    assert len(caught.value.message) < 2100
    caught.value.message.encode()


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("javascript:alert(1)", False),
        ("JaVaScRiPt:alert(1)", False),
        ("data:text/html,x", False),
        ("vbscript:x", False),
        ("https://a.example/LICENSE", True),
        ("http://a.example/x?y=1", True),
        ("LICENSE.md", True),
        ("//a.example", False),
        ("https://a\u202eb<script>", False),
    ],
)
def test_a_licence_links_to_pages_alone(tmp_path: Path, link: str, kept: bool) -> None:
    front = f"---\nlicense: other\nlicense_name: my\u202e\x1b[2J name\nlicense_link: {link}\n---\n"
    (tmp_path / "README.md").write_text(front)
    found = licence.of_folder(tmp_path)
    assert found is not None
    assert found.link == (link if kept else None)
    assert found.name == "my\ufffd\ufffd[2J name"


def test_a_card_of_line_ends_is_read_at_once(tmp_path: Path) -> None:
    """A pattern whose parts both match line ends tries every way to share them out."""
    (tmp_path / "README.md").write_text("---" + "\n" * 65_000)
    began = time.process_time()
    assert licence.of_folder(tmp_path) is None
    assert time.process_time() - began < 0.5


def test_the_card_shows_what_strangers_wrote() -> None:
    assert not {"\u202e", "\x1b", "\ud800"} & set(card.plain("a\u202eb\x1b[2Jc\ud800"))
