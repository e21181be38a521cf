"""The report as one HTML page that needs nothing but itself: no script, no font, no request."""

from __future__ import annotations

from pruning_core.reporting import words
from pruning_core.reporting.rendering import rendered
from pruning_core.reporting.sections import sections
from pruning_core.spec.report import GateReport, Report


def html(report: Report) -> str:
    """Return the page; equal reports give equal bytes."""
    values = {
        "done": words.what_was_done(report),
        "verdict": _verdict(report.gates),
        "passed": all(gate.passed for gate in report.gates),
        "warnings": report.warnings,
        "sections": sections(report),
    }
    return words.printable(rendered("report.html.jinja", values))


def _verdict(gates: tuple[GateReport, ...]) -> str:
    """Return how the gates went in one sentence; nothing where there are none."""
    missed = [gate.metric for gate in gates if not gate.passed]
    if not gates:
        return ""
    if not missed:
        return f"Passed: {'the quality gate holds' if len(gates) == 1 else f'all {len(gates)} quality gates hold'}."
    return f"Missed: {len(missed)} of {len(gates)} quality gates ({', '.join(missed)})."
