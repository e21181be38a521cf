"""Writes docs/benchmarks.md from docs/benchmarks.json, which `bench.quality` and `bench.evaluation` fill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path("docs/benchmarks.json")
PAGE = Path("docs/benchmarks.md")
TEMPLATE = Path("bench/benchmarks.md")
# Perplexities that the authors' own code reached under the same conditions.
THEIR_CONDITIONS = "128 x 512 / 16 x 2048"
THEIRS = {"dense": 20.71, "magnitude": 465.6, "Wanda": 42.68, "RIA": 46.63, "SparseGPT": 35.37}

Cells = dict[str, dict[str, Any]]


def write() -> None:
    """Fill the template's marks with tables; what was not run is an empty cell."""
    page = TEMPLATE.read_text(encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for name, make in {"methods": _methods, "extras": _extras}.items():
        tables = (
            f"{_conditions(conditions)}\n\n{make(cells)}"
            for conditions, cells in results.get(name, {}).items()
        )
        page = page.replace(f"<!-- {name} -->", "\n\n".join(tables))
    compared = results.get("authors", {}).get(THEIR_CONDITIONS, {})
    page = page.replace(
        "<!-- authors -->", f"{_conditions(THEIR_CONDITIONS)}\n\n{_authors(compared)}"
    )
    page = page.replace("<!-- evaluation -->", _evaluation(results.get("evaluation", {})))
    PAGE.write_text(page, encoding="utf-8")


def _conditions(key: str) -> str:
    calibration, evaluation = key.split(" / ")
    return f"Calibration: {calibration} tokens. Evaluation: {evaluation} tokens."


def _methods(cells: Cells) -> str:
    found = {key: cell for key, cell in cells.items() if " | " in key}
    amounts = sorted({key.split(" | ")[1] for key in found}, key=lambda one: (":" in one, one))
    names = list(dict.fromkeys(key.split(" | ")[0] for key in found))
    rows = [["dense", *[_perplexity(cells.get("dense"))] * len(amounts)]]
    rows += [
        [name, *(_perplexity(cells.get(f"{name} | {amount}")) for amount in amounts)]
        for name in names
    ]
    return _table(["method", *amounts], rows)


def _authors(cells: Cells) -> str:
    rows = []
    for key, cell in cells.items():
        name = key.split(" | ")[0]
        ours, theirs = cell["perplexity"], THEIRS.get(name)
        apart = f"{100 * (ours / theirs - 1):+.1f} %" if theirs else ""
        rows.append([name, f"{ours:.2f}", f"{theirs:.2f}" if theirs else "", apart])
    return _table(["method", "Secateur", "authors' code", "difference"], rows)


def _extras(cells: Cells) -> str:
    rows = [
        [
            key,
            _perplexity(cell),
            f"{cell.get('sparsity', 0):.4f}",
            f"{cell.get('mean_error') or 0:.4f}",
        ]
        for key, cell in cells.items()
        if key != "dense"
    ]
    return _table(["specification", "perplexity", "sparsity", "mean output error"], rows)


def _evaluation(cells: Cells) -> str:
    rows = [
        [
            f"{task}, {cell['items']} items",
            *(f"{cell[who][clock]:.1f}" for clock in ("cpu", "wall") for who in ("ours", "theirs")),
            f"{cell['ratio']:.2f}",
        ]
        for task, cell in cells.items()
    ]
    head = ["task", "CPU seconds, Secateur", "lm_eval", "wall seconds, Secateur", "lm_eval"]
    notes = [
        f"{cell['rounds']} rounds in turn, their medians; {cell['device']}; lm_eval at batch size {cell['batch']}. "
        f"Largest difference of a choice's log-likelihood: {cell['largest_difference']:.0e}."
        for cell in cells.values()
    ]
    return "\n\n".join([_table([*head, "ratio of CPU seconds"], rows), *notes])


def _perplexity(cell: dict[str, Any] | None) -> str:
    return "" if cell is None else f"{cell['perplexity']:.2f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)
