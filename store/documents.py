"""Reading into JSON columns, the same on SQLite and Postgres and with any characters in a key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from sqlalchemy import ColumnElement, FunctionElement, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler


class _Member(FunctionElement[str]):
    type = Text()
    inherit_cache = True


def member(document: Any, path: Sequence[str]) -> ColumnElement[str]:
    """Return the text at `path`, NULL where there is none."""
    return reduce(lambda inner, key: _Member(inner, literal(key, Text())), path, document)


@compiles(_Member, "postgresql")
def _postgres(element: _Member, compiler: SQLCompiler, **kw: Any) -> str:
    document, key = (compiler.process(part, **kw) for part in element.clauses)
    return f"(({document})::jsonb ->> {key})"


@compiles(_Member, "sqlite")
def _sqlite(element: _Member, compiler: SQLCompiler, **kw: Any) -> str:
    document, key = (compiler.process(part, **kw) for part in element.clauses)
    return f"(SELECT m.value FROM json_each({document}) AS m WHERE m.key = {key})"  # noqa: S608 - both are compiled
