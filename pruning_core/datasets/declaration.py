"""A task as data: one TOML file that says what the items are, how they are asked and where on the hub they lie."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from jinja2 import StrictUndefined, Template, TemplateError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from pruning_core.datasets.items import Item, item
from pruning_core.errors import DatasetInvalid
from pruning_core.spec.base import Frozen

TaskKind = Literal["text", "multiple_choice"]
FilePattern = Annotated[str, StringConstraints(pattern=r"\.(parquet|jsonl|jsonl\.gz|json\.gz)$")]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_RENDERING = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a template or an expression can raise on a row that it does not fit."""


def _regex_replace(text: str, pattern: str, replacement: str) -> str:
    return re.sub(pattern, replacement, text)


def _environment() -> ImmutableSandboxedEnvironment:
    """Return templates that cannot reach Python, where a missing field is an error and no text is escaped."""
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["regex_replace"] = _regex_replace
    return environment


_ENVIRONMENT = _environment()


@cache
def _template(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


@cache
def _expression(source: str) -> Callable[[dict[str, Any]], Any]:
    compiled = _ENVIRONMENT.compile_expression(source, undefined_to_none=False)

    def evaluate(row: dict[str, Any]) -> Any:
        value = compiled(row)
        if isinstance(value, Undefined):
            value._fail_with_undefined_error()
        return value

    return evaluate


@contextmanager
def _told(label: str) -> Iterator[None]:
    try:
        yield
    except _RENDERING as error:
        raise DatasetInvalid(f"{label}: {error}") from None


@contextmanager
def _refused() -> Iterator[None]:
    """Turn a template's syntax error into one that pydantic reports with its key."""
    try:
        yield
    except TemplateError as error:
        raise ValueError(f"not a Jinja template or expression: {error}") from None


class Templates(Frozen):
    """How a question is put: rendered once per choice, with the item's fields, `choice`, `letter`, `choices`, `letters`."""

    prompt: str
    """What the model reads."""
    answer: str
    """What it continues with; the choice whose continuation is the likeliest is its answer."""

    @field_validator("prompt", "answer")
    @classmethod
    def _compiles(cls, value: str) -> str:
        with _refused():
            _template(value)
        return value


class Hub(Frozen):
    """Where a dataset lies on the hub, and what its columns mean."""

    dataset: str = Field(pattern=r"^hf://datasets/[\w.\-]+/[\w.\-]+$")
    """`hf://datasets/<owner>/<name>`."""
    revision: str = Field(default="main", min_length=1)
    """Branch, tag or commit; reports name the commit that it meant."""
    calibration: tuple[FilePattern, ...] = Field(min_length=1)
    """Files of the repository, `*` for any part of a name."""
    evaluation: tuple[FilePattern, ...] = Field(min_length=1)
    """The same as `calibration`: a quarter of the items, by their hash, is held out for evaluation."""
    join: str | None = None
    """Text tasks alone: all rows are one document, joined by this."""
    item: dict[str, str]
    """Jinja expressions over a row: `text`, or `choices`, `answer`, `question`, `context` and any other field of the templates."""

    @field_validator("item")
    @classmethod
    def _compile(cls, value: dict[str, str]) -> dict[str, str]:
        with _refused():
            for expression in value.values():
                _expression(expression)
        return value

    @property
    def repo(self) -> str:
        """`<owner>/<name>`."""
        return self.dataset.removeprefix("hf://datasets/")


class Declaration(Frozen):
    """What is known of a task without its data; the file's name is the task's."""

    kind: TaskKind
    """`text`: documents. `multiple_choice`: questions with choices, one of them right."""
    description: str = Field(min_length=1, max_length=500)
    language: str = "en"
    domain: str = "general"
    licence: str | None = None
    """Of the data, as an SPDX identifier where there is one."""
    template: Templates | None = None
    """Multiple choice alone. Unset: the context if any, `Question: ...` and `Answer:`."""
    hub: Hub | None = None
    """Unset: the data comes from a folder of the task's name."""

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> Self:
        questions = self.kind == "multiple_choice"
        if self.template is not None and not questions:
            raise ValueError("`template` is for multiple_choice; texts are taken as they are")
        if self.hub is None:
            return self
        if self.hub.join is not None and questions:
            raise ValueError("`hub.join` is for text")
        needed = {"choices", "answer"} if questions else {"text"}
        if not needed <= self.hub.item.keys():
            raise ValueError(f"`hub.item` of kind {self.kind} needs {', '.join(sorted(needed))}")
        return self

    @property
    def templates(self) -> Templates:
        """The templates that questions are put with."""
        return self.template or _DEFAULT


_DEFAULT = Templates(
    prompt="{% if context %}{{ context }}\n{% endif %}{% if question %}Question: {{ question }}\n{% endif %}Answer:",
    answer=" {{ choice }}",
)


def read(path: Path) -> Declaration:
    """Return the declaration of a TOML file.

    Raises:
        DatasetInvalid: it is not TOML or not a declaration; the message names file and key.
    """
    try:
        return Declaration.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        place = f"{path.name}, `{key}`" if key else path.name
        raise DatasetInvalid(f"{place}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetInvalid(f"{path.name}: not TOML in UTF-8: {error}") from None
    except OSError as error:
        raise DatasetInvalid(f"{path.name}: cannot be read: {error.strerror}") from None


def mapped(hub: Hub, row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the normal fields of a hub row.

    Raises:
        DatasetInvalid: an expression does not fit the row; the message names the field and the row.
    """
    fields = {}
    for name, source in hub.item.items():
        with _told(f"{where}: hub.item `{name}`"):
            fields[name] = _expression(source)(dict(row))
    return fields


def item_of(fields: Mapping[str, Any], where: str) -> Item | None:
    """Return the item of a hub row's fields; None where it has no text, or its choices leave no one right answer.

    Public datasets hold such rows (an empty line, the same choice twice). Nobody who names the dataset can mend them.

    Raises:
        DatasetInvalid: any other fault, which the declaration makes.
    """
    choices = fields.get("choices")
    if isinstance(choices, list | tuple) and all(isinstance(choice, str) for choice in choices):
        named = {choice.strip() for choice in choices}
        if "" in named or len(named) < len(choices):
            return None
    elif "choices" not in fields and not str(fields.get("text") or "").strip():
        return None
    return item(fields, where)


def rendered(
    declaration: Declaration, fields: Mapping[str, Any], choices: tuple[str, ...], where: str
) -> tuple[tuple[str, str], ...]:
    """Return prompt and continuation of every choice. The right answer is no field that a template can tell.

    Raises:
        DatasetInvalid: a template names a field that the item has not, or leaves nothing to compare.
    """
    letters = tuple(LETTERS[: len(choices)])
    if len(letters) < len(choices):
        raise DatasetInvalid(f"{where}: more than {len(LETTERS)} choices")
    known = {name: value for name, value in fields.items() if name != "answer"}
    known |= {"choices": choices, "letters": letters}
    templates, pairs = declaration.templates, []
    for choice, letter in zip(choices, letters, strict=True):
        fields = known | {"choice": choice, "letter": letter}
        prompt = _render(templates.prompt, fields, f"{where}: template `prompt`")
        pairs.append((prompt, _render(templates.answer, fields, f"{where}: template `answer`")))
    if len(set(pairs)) < len(pairs):
        raise DatasetInvalid(f"{where}: the templates give two choices the same text")
    return tuple(pairs)


def _render(template: str, fields: Mapping[str, Any], label: str) -> str:
    with _told(label):
        text = _template(template).render(fields)
    if not text.strip():
        raise DatasetInvalid(f"{label} gives no text")
    return text
