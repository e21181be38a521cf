"""Measures a checkpoint with lm-evaluation-harness, where that is installed.

Run as `python -m pruning_core.evaluate.lm_eval REQUEST`, this file is the process that does it: the harness loads the
whole model by stock transformers, and its memory is given back afterwards. No code from a hub runs there, neither a
model's nor a dataset's nor a metric's.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from pruning_core.errors import (
    DatasetUnreachable,
    HarnessUnavailable,
    NumericalFailure,
    PruningError,
)
from pruning_core.spec.report_parts.quality import HarnessMetric
from pruning_core.system import subprocesses
from pruning_core.system.files import is_disk_full

SEED = 1234
CPU_BATCH = 4
"""Requests per forward pass on a CPU, where longer rows only pad more and hold more logits."""
ERRORS: dict[str, type[PruningError]] = {
    error.code: error for error in (DatasetUnreachable, HarnessUnavailable)
}


@dataclass(frozen=True)
class HarnessFigure:
    """One figure of one model; `metric` carries the harness's filter where it has one."""

    task: str
    metric: str
    value: float
    stderr: float | None
    items: int | None


def available() -> bool:
    """Return whether the harness is installed here."""
    return importlib.util.find_spec("lm_eval") is not None


def require() -> None:
    """Raise HarnessUnavailable where the harness is not installed."""
    if not available():
        raise HarnessUnavailable(
            'lm-evaluation-harness is not installed beside the worker: pip install "secateur[eval]"',
            suggestions=("evaluate with the harness `secateur`",),
        )


def evaluate(
    folder: Path,
    tasks: Sequence[str],
    *,
    limit: int | None,
    device: torch.device,
    include: Path | None = None,
    on_progress: subprocesses.ProgressCallback = lambda _done, _total, _unit, _share: None,
    alive: Callable[[], None] = lambda: None,
) -> list[HarnessFigure]:
    """Return what the harness finds, in its order: groups after their tasks.

    Args:
        folder: The checkpoint.
        tasks: Names of tasks, groups or tags.
        limit: Items per task, from the first; None for all.
        device: Where to load the model.
        include: Folder of further task files; they may name Python functions, so it belongs to the operator.
        on_progress: Called with what the process tells of its progress.
        alive: Called every few seconds while it tells nothing.

    Raises:
        HarnessUnavailable: it is not installed, does not know a task, or cannot run one.
        DatasetUnreachable: a task's data cannot be fetched.
        HostOutOfMemory, GpuOutOfMemory, DiskFull: the machine did not let it.
    """
    require()
    request = {
        "folder": str(folder),
        "tasks": list(tasks),
        "limit": limit,
        "device": str(device),
        "include": str(include) if include is not None and include.is_dir() else None,
    }
    try:
        answer = subprocesses.run(
            __name__, json.dumps(request), on_progress=on_progress, alive=alive
        )
    except subprocesses.HelperFailed as error:
        raise HarnessUnavailable(
            f"lm-evaluation-harness cannot run {', '.join(tasks)}: {error}"
        ) from None
    return _unpacked(json.loads(answer.splitlines()[-1]))


def _unpacked(answer: dict[str, Any]) -> list[HarnessFigure]:
    """Return the rows of an answer, or raise its error."""
    if "error" in answer:
        raise ERRORS[answer["error"]](answer["message"], suggestions=tuple(answer["suggestions"]))
    return [HarnessFigure(**row) for row in answer["rows"]]


def metrics(
    dense: Iterable[HarnessFigure] | None, pruned: Iterable[HarnessFigure]
) -> tuple[HarnessMetric, ...]:
    """Pair the figures of both models.

    Args:
        dense: Of the dense model; None where it was not measured.
        pruned: Of the pruned one.

    Raises:
        NumericalFailure: a figure is NaN or infinite.
    """
    before = {(row.task, row.metric): row for row in dense or ()}
    return tuple(_pair(before.get((row.task, row.metric)), row) for row in pruned)


def _pair(dense: HarnessFigure | None, pruned: HarnessFigure) -> HarnessMetric:
    for row in (dense, pruned):
        if row is not None and not math.isfinite(row.value):
            raise NumericalFailure(
                f"lm-evaluation-harness finds {row.value} for {row.metric} of {row.task}"
            )
    return HarnessMetric(
        task=pruned.task,
        metric=pruned.metric,
        dense=dense.value if dense else None,
        pruned=pruned.value,
        dense_stderr=dense.stderr if dense else None,
        pruned_stderr=pruned.stderr,
        items=pruned.items,
    )


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows, or an error that the asking process raises again."""
    try:
        rows = _measure(request)
    except tuple(ERRORS.values()) as error:
        return {
            "error": error.code,
            "message": error.message,
            "suggestions": error.suggestions,
        }
    return {"rows": [asdict(row) for row in rows]}


def _measure(request: Mapping[str, Any]) -> list[HarnessFigure]:
    import lm_eval

    _tell_requests()
    manager = _manager(request["include"], request["tasks"])
    tasks = _load(manager, request["tasks"])
    on_cpu = torch.device(request["device"]).type == "cpu"
    outcome = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": request["folder"],
            "dtype": "float32" if on_cpu else "auto",
            "trust_remote_code": False,
        },
        tasks=tasks,
        limit=request["limit"],
        device=request["device"],
        batch_size=CPU_BATCH if on_cpu else "auto",
        task_manager=manager,
        log_samples=False,
        random_seed=SEED,
        numpy_random_seed=SEED,
        torch_random_seed=SEED,
        fewshot_random_seed=SEED,
    )
    figures = {**outcome["results"], **outcome.get("groups", {})}
    return [row for task, values in figures.items() for row in _rows(task, values)]


def _tell_requests() -> None:
    """Let the harness tell how many of its requests to the model are answered."""
    from lm_eval.models import huggingface

    silent: Any = huggingface.tqdm

    def update(bar: Any, n: float | None = 1) -> Any:
        shown = silent.update(bar, n)
        subprocesses.report_progress(int(bar.n), int(bar.total or 0), "request")
        return shown

    subprocesses.report_loading()
    huggingface.tqdm = type("TellingBar", (silent,), {"update": update})


def _manager(include: str | None, names: Sequence[str]) -> Any:
    """Return what finds the tasks; the harness's own many are read only where the operator's do not suffice."""
    from lm_eval.tasks import TaskManager

    if include is not None:
        own = TaskManager(include_path=include, include_defaults=False)
        if set(names) <= set(own.all_subtasks):
            return own
    return TaskManager(include_path=include, include_defaults=True)


def _load(manager: Any, names: Sequence[str]) -> list[Any]:
    """Return the tasks and groups asked for, with their data, before any model is loaded."""
    from evaluate import config as metric_settings

    for name in names:
        if name not in manager.task_index:
            close = get_close_matches(name, manager.task_index, n=3)
            raise HarnessUnavailable(
                f"lm-evaluation-harness knows no task {name!r}", suggestions=tuple(close)
            )
    metric_settings.HF_EVALUATE_OFFLINE = True  # else a metric's code is fetched and run
    try:
        loaded = manager.load(list(names))
    except OSError as error:
        if is_disk_full(error):
            raise
        raise DatasetUnreachable(
            f"the data of {', '.join(names)} cannot be fetched: {error}",
            suggestions=(
                "let the worker reach the hub once, it keeps what it fetched",
                "evaluate with the harness `secateur` and data of your own",
            ),
        ) from None
    for task in loaded["tasks"].values():
        _refuse_code(task)
    nested = {name for children in loaded.get("group_map", {}).values() for name in children}
    everything = {**loaded.get("groups", {}), **loaded["tasks"]}
    return [entry for name, entry in everything.items() if name not in nested]


def _refuse_code(task: Any) -> None:
    wanted = task.get_config("metric_list") or ()
    if getattr(task, "UNSAFE_CODE", False) or any(metric.get("hf_evaluate") for metric in wanted):
        raise HarnessUnavailable(
            f"the task {task.task_name} runs code that a model wrote or a hub holds, which is refused"
        )


def _rows(task: str, values: Mapping[str, Any]) -> list[HarnessFigure]:
    """Return the figures among what the harness tells of one task: their names hold a comma."""
    items = values.get("sample_len")
    rows = []
    for key, value in values.items():
        metric, comma, of = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, Real):
            continue
        stderr = values.get(f"{metric}_stderr,{of}")
        rows.append(
            HarnessFigure(
                task=task,
                metric=metric if of == "none" else key,
                value=float(value),
                stderr=float(stderr)
                if isinstance(stderr, Real) and math.isfinite(stderr)
                else None,
                items=items if isinstance(items, int) else None,
            )
        )
    return rows


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_answer(json.loads(sys.argv[1]))) + "\n")
