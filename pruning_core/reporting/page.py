"""The report as one HTML page that needs nothing but itself: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Iterator

from pruning_core.printable import shown
from pruning_core.reporting import formatting, naming
from pruning_core.reporting.headline import headline
from pruning_core.reporting.rendering import rendered
from pruning_core.reporting.sections import sections
from pruning_core.spec.report import Report


def html(report: Report) -> str:
    """Return the page; equal reports give equal bytes."""
    values = {
        "name": naming.model(report.origin.model),
        "won": headline(report),
        "facts": [*_facts(report)],
        "done": formatting.what_was_done(report),
        "verdict": _verdict(report),
        "passed": all(gate.passed for gate in report.gates),
        "warnings": report.warnings,
        "sections": sections(report),
    }
    return shown(rendered("report.html.jinja", values))


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what was pruned, by which job and when."""
    origin = report.origin
    yield "Model", origin.model
    revision = " = ".join(filter(None, (origin.revision, origin.commit)))
    if revision:
        yield "Revision", revision
    if origin.job_id:
        yield "Job", f"{origin.job_id}{f' ({origin.job_name})' if origin.job_name else ''}"
    yield "Finished", formatting.moment(report.finished_at)
    yield "Took", formatting.seconds((report.finished_at - report.started_at).total_seconds())


def _verdict(report: Report) -> str:
    """Return how the gates went in one sentence; nothing where there are none."""
    gates = report.gates
    missed = [naming.metric(report, gate.metric) for gate in gates if not gate.passed]
    if not gates:
        return ""
    if not missed:
        return f"Passed: {'the quality gate holds' if len(gates) == 1 else f'all {len(gates)} quality gates hold'}."
    return f"Missed: {len(missed)} of {len(gates)} quality gates ({', '.join(missed)})."
