"""Errors as the command line shows them: a block for people, a line of JSON for programs."""

from __future__ import annotations

import json
from typing import Any

from rich.text import Text

from secateur import flags
from secateur.errors import ApiError, SecateurError
from secateur.render import err, line


def show(problem: SecateurError) -> None:
    """Show code, detail, options at fault, what to try."""
    err.print(Text.assemble((problem.code, "bold red"), " ", flags.in_words(problem.detail)))
    if isinstance(problem, ApiError):
        for field in problem.errors[1:]:
            err.print(
                Text(f"  {flags.of_field(field)}: {flags.in_words(str(field.get('detail')))}")
            )
    for suggestion in problem.suggestions:
        err.print(Text(f"  - {flags.in_words(suggestion)}"))
    if isinstance(problem, ApiError) and problem.status >= 500:
        err.print(Text(f"  request {problem.request_id}"))


def show_json(problem: SecateurError, exit_code: int) -> None:
    """Write an error for programs: one line on stderr."""
    content: dict[str, Any] = {
        "code": problem.code,
        "detail": problem.detail,
        "suggestions": problem.suggestions,
        "exit_code": exit_code,
    }
    if isinstance(problem, ApiError):
        options = [{**field, "option": flags.of_field(field) or None} for field in problem.errors]
        content |= {
            "status": problem.status,
            "retryable": problem.retryable,
            "request_id": problem.request_id,
            "errors": options,
        }
    line(json.dumps({"error": content}))
