"""`secateur submit`: from options to a specification."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from secateur import arguments, data, following, quantities, render
from secateur.client import Client
from secateur.models import Job

Model = Annotated[str, typer.Option(help="hf://org/name@revision, file:///path, or a path")]
Method = Annotated[str, typer.Option(help="One of `secateur methods`")]
Sparsity = Annotated[
    str | None,
    typer.Option(
        help="Share of the weights that becomes zero: 0.5 or 50%; of methods that remove units, "
        "share of the model's parameters that goes"
    ),
]
Parameters = Annotated[
    str | None,
    typer.Option(help="Size of the result, for methods that remove units: 100M, 1.2B"),
]
Bytes = Annotated[
    str | None, typer.Option("--bytes", help="The same in bytes: 250M, 1.2GB, 1.2GiB")
]
Pattern = Annotated[str | None, typer.Option(help="row, matrix, units, or N:M (N kept of M)")]
Calibration = Annotated[
    list[str] | None,
    typer.Option(help="One of `secateur tasks`, file:ID, or a file to upload; repeatable"),
]
Samples = Annotated[int | None, typer.Option(help="Calibration windows per task")]
SeqLen = Annotated[int | None, typer.Option(help="Tokens per calibration window")]
Seed = Annotated[int | None, typer.Option(help="Decides which text is drawn")]
Evaluate = Annotated[
    list[str] | None,
    typer.Option(
        help="A task, file:ID, or a file to upload, to measure before and after; repeatable. "
        "Unset: what calibrates"
    ),
]
Gate = Annotated[
    list[str] | None,
    typer.Option(help="A bound, else the job fails: 'wikitext2.ppl_ratio<=1.15'; repeatable"),
]
EvalWindows = Annotated[int | None, typer.Option(help="Windows for perplexity")]
EvalSeqLen = Annotated[int | None, typer.Option(help="Tokens per such window")]
Assigned = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any other field of `prune`: method.preset=smollm2-135m, allocation=owl, "
        "refinement='[\"dsnot\"]'; repeatable",
    ),
]
Name = Annotated[str | None, typer.Option(help="For people, and in the place of its id")]
Label = Annotated[list[str] | None, typer.Option(help="key=value; repeatable")]
Wait = Annotated[bool, typer.Option("--wait", help="Watch the job until it has ended")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs")]


def submit(
    model: Model,
    method: Method,
    sparsity: Sparsity = None,
    parameters: Parameters = None,
    bytes_: Bytes = None,
    pattern: Pattern = None,
    calibration: Calibration = None,
    samples: Samples = None,
    seq_len: SeqLen = None,
    seed: Seed = None,
    evaluate: Evaluate = None,
    gate: Gate = None,
    eval_windows: EvalWindows = None,
    eval_seq_len: EvalSeqLen = None,
    set_: Assigned = None,
    name: Name = None,
    label: Label = None,
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job."""
    calibrating, evaluating = calibration or [], evaluate or []
    paths = data.local_files(calibrating, "--calibration")
    paths |= data.local_files(evaluating, "--evaluate")
    asked: dict[str, Any] = {
        "method": {"name": method},
        "sparsity": arguments.share(sparsity, "--sparsity"),
        "budget": _budget(parameters, bytes_),
        "pattern": arguments.pattern(pattern),
        "calibration": _calibration(None if calibration else samples, seq_len, seed),
        "evaluation": {"windows": eval_windows, "seq_len": eval_seq_len},
        "gates": [arguments.gate(bound) for bound in gate or ()],
    }
    assignments = [arguments.assignment(text) for text in set_ or ()]
    ref, labels = arguments.model_ref(model, "--model"), arguments.labels(label)
    with Client() as client:
        names = data.names(client, calibrating, evaluating, paths, quiet=as_json)
        tasks = [{"name": names[text], "samples": samples} for text in calibrating]
        asked["calibration"]["tasks"] = tasks
        asked["evaluation"]["tasks"] = [names[text] for text in evaluating]
        prune = arguments.assigned(arguments.without_unset(asked), assignments)
        job = client.submit(ref, prune, name=name, labels=labels)
        _tell(client, job, wait=wait, as_json=as_json)


def _calibration(samples: int | None, seq_len: int | None, seed: int | None) -> dict[str, Any]:
    return {"samples": samples, "seq_len": seq_len, "seed": seed}


def _budget(parameters: str | None, bytes_: str | None) -> dict[str, int | None]:
    return {
        "parameters": arguments.number(parameters, quantities.parameters, "--parameters"),
        "bytes": arguments.number(bytes_, quantities.byte_count, "--bytes"),
    }


def _tell(client: Client, job: Job, *, wait: bool, as_json: bool) -> None:
    """Show the id alone on stdout; what else is worth knowing goes to stderr."""
    if not as_json:
        for note in render.notes(job):
            render.line(f"note: {note}")
    if wait:
        if not as_json:
            render.line(f"submitted {job.id}")
        end(client, following.follow(client.follow(job.id), as_json=as_json), as_json=as_json)
    elif as_json:
        render.json_text(job.model_dump_json())
    else:
        render.out.print(job.id)


def end(client: Client, job: Job, *, as_json: bool) -> None:
    """Show how the job ended; one that did not succeed is an error, after the report if it left one."""
    if as_json:
        render.json_text(job.model_dump_json())
    elif job.result is not None:
        render.job(job)
        render.report(client.report(job.id))
    job.raise_for_status()
