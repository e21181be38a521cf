"""Writes docs/benchmarks.md from docs/benchmarks.json, which the other benchmarks fill."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path("docs/benchmarks.json")
PAGE = Path("docs/benchmarks.md")
TEMPLATE = Path("bench/benchmarks.md")
# Perplexities that the authors' own code reached under the same conditions.
THEIR_CONDITIONS = "128 x 512 / 16 x 2048"
THEIRS = {"dense": 20.71, "magnitude": 465.6, "Wanda": 42.68, "RIA": 46.63, "SparseGPT": 35.37}

CONTEXTUAL = Path("docs/contextual.json")
LARGE = 1e5
"""Perplexities from here on are written by their order of magnitude."""
MODELS = {"smollm2": "SmolLM2-135M-Instruct", "gemma3": "Gemma 3 270M"}

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
    for name, make in UNIT_TABLES.items():
        page = page.replace(f"<!-- {name} -->", make(results))
    PAGE.write_text(page, encoding="utf-8")


def _conditions(key: str) -> str:
    calibration, evaluation = key.split(" / ")
    return f"Calibration: {calibration} tokens. Evaluation: {evaluation} tokens."


def _methods(cells: Cells) -> str:
    pruned_cells = {key: cell for key, cell in cells.items() if " | " in key}
    amounts = sorted(
        {key.split(" | ")[1] for key in pruned_cells}, key=lambda amount: (":" in amount, amount)
    )
    names = list(dict.fromkeys(key.split(" | ")[0] for key in pruned_cells))
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


def _structured(results: dict[str, Any]) -> str:
    speeds = results.get("structured_speed", {})
    parts = []
    for model, tables in results.get("structured", {}).items():
        measured = {
            key: cell for table in speeds.get(model, {}).values() for key, cell in table.items()
        }
        parts.append(f"### {MODELS[model]}")
        for conditions, cells in tables.items():
            parts += _by_amount(conditions, cells, measured)
        parts += [f"Speeds: {conditions}." for conditions in speeds.get(model, {})]
    return "\n\n".join(parts)


def _by_amount(conditions: str, cells: Cells, speeds: Cells) -> list[str]:
    """Return one table for each share that goes; a refused cell says why."""
    head = ["method", "parameters", "MB", "kept", "perplexity", "acc", "acc_norm"]
    head += ["read-out error", "CPU s", "prefill", "decode"]
    parts = [_conditions(conditions)] if cells else []
    for amount in _amounts(cells):
        row_cells = {"dense": cells["dense"]} if "dense" in cells else {}
        row_cells |= {
            key.split(" | ")[0]: cell for key, cell in cells.items() if key.endswith(f" | {amount}")
        }
        rows = [
            _unit_row(name, cell, speeds)
            for name, cell in row_cells.items()
            if "refused" not in cell
        ]
        parts += [f"**{amount} of the parameters removed**", _table(head, rows)]
        parts += [
            f"{name}: refused. {cell['refused']}"
            for name, cell in row_cells.items()
            if "refused" in cell
        ]
    return parts


def _amounts(cells: Cells) -> list[str]:
    amounts = {key.split(" | ")[1] for key in cells if " | " in key}
    return sorted(amounts, key=lambda amount: float(amount.split()[0]))


def _unit_row(name: str, cell: dict[str, Any], speeds: Cells) -> list[str]:
    shape = shape_key(cell) if "shape" in cell else ""
    speed = speeds.get(shape, {})
    return [
        name,
        f"{cell['parameters'] / 1e6:.1f} M",
        f"{cell['bytes'] / 1e6:.0f}",
        shape,
        _perplexity(cell),
        *(_share(cell, name) for name in ("acc", "acc_norm")),
        " to ".join(f"{cell[key]:.3f}" for key in ("error_before_refit", "error") if cell.get(key)),
        f"{cell['cpu_seconds']:.0f}" if "cpu_seconds" in cell else "",
        *(f"{speed[phase]['speed_up']:.2f}" if speed else "" for phase in ("prefill", "decode")),
    ]


def _share(cell: dict[str, Any], name: str) -> str:
    return f"{100 * cell[f'mean_{name}']:.1f} ± {100 * cell[f'mean_{name}_margin']:.1f}"


def _speed(results: dict[str, Any]) -> str:
    head = ["model", "kept", "phase", "operations removed", "allowed", "measured", "of allowed"]
    rows = [
        [
            MODELS[model],
            shape,
            phase,
            f"{100 * figures['operations_removed']:.1f} %",
            f"{figures['allowed']:.2f}",
            f"{figures['speed_up']:.2f}",
            f"{figures['of_allowed']:.2f}",
        ]
        for model, tables in results.get("structured_speed", {}).items()
        for cells in tables.values()
        for shape, cell in cells.items()
        for phase, figures in cell.items()
    ]
    return _table(head, rows) if rows else ""


def _diet(results: dict[str, Any]) -> str:
    parts = []
    for model, tables in results.get("structured_diet", {}).items():
        parts.append(f"#### {MODELS[model]}")
        for conditions, cells in tables.items():
            amounts = _amounts(cells)
            names = list(dict.fromkeys(key.split(" | ")[0] for key in cells))
            rows = [
                [
                    name,
                    *(
                        _diet_figures(cells.get(f"{name} | {amount}", cells.get(name)))
                        for amount in amounts
                    ),
                ]
                for name in names
            ]
            parts += [_conditions(conditions), _table(["reading", *amounts], rows)]
    return "\n\n".join(parts)


def _diet_figures(cell: dict[str, Any] | None) -> str:
    """Return perplexity and mean accuracy."""
    if cell is None or "refused" in cell:
        return "" if cell is None else "refused"
    return f"{_perplexity(cell)}; {_share(cell, 'acc')}"


def _cost(results: dict[str, Any]) -> str:
    rows = [
        [MODELS[model], name, conditions, f"{cell['cpu_seconds']:.1f}", f"{cell['ratio']:.2f}"]
        for model, tables in results.get("structured_cost", {}).items()
        for conditions, cells in tables.items()
        for name, cell in cells.items()
    ]
    head = ["model", "method", "tokens", "CPU seconds", "over a plain forward pass"]
    return _table(head, rows) if rows else ""


def _contextual(_results: dict[str, Any]) -> str:
    """Return what became of each domain's tasks: dense, pruned, fine-tuned."""
    if not CONTEXTUAL.is_file():
        return ""
    jobs = json.loads(CONTEXTUAL.read_text(encoding="utf-8"))
    rows = []
    for domain in dict.fromkeys(key.split(", ")[0] for key in jobs):
        pruned = jobs[f"{domain}, 0 steps"]
        trained = next((job for key, job in jobs.items() if _trained(key, domain)), {})
        assert not trained or trained["evaluation"] == pruned["evaluation"]
        for task in pruned:
            if isinstance(pruned[task], dict) and {"perplexity", "acc"} & pruned[task].keys():
                figures = _three(pruned[task], trained.get(task))
                steps = str(trained["recovery"]["steps"]) if trained else ""
                size = f"{100 * pruned['share']:.1f} %"
                rows.append([domain, task, *figures, steps, size, pruned["evaluation"]])
    head = ["domain", "task", "measure", "dense", "pruned", "fine-tuned", "steps", "smaller by"]
    head += ["on"]
    return _table(head, rows)


def _trained(key: str, domain: str) -> bool:
    return key.startswith(f"{domain}, ") and not key.endswith(" 0 steps")


def _three(pruned: dict[str, Any], trained: dict[str, Any] | None) -> list[str]:
    name, shown = ("perplexity", "{:.2f}") if "perplexity" in pruned else ("acc", "{:.3f}")
    last = "" if trained is None else shown.format(trained[name][1])
    return [name, *map(shown.format, pruned[name]), last]


def shape_key(cell: Mapping[str, Any]) -> str:
    """Return the kept sizes of a cell, as speeds are kept by."""
    return ", ".join(f"{kind} {size}" for kind, size in sorted(cell["shape"].items()))


def _perplexity(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return ""
    perplexity = cell["perplexity"]
    return f"{perplexity:.2f}" if perplexity < LARGE else f"{perplexity:.0e}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


UNIT_TABLES = {
    "structured": _structured,
    "speed": _speed,
    "diet": _diet,
    "contextual": _contextual,
    "cost": _cost,
}
"""Marks of the template that hold what `bench.structured` measured."""
