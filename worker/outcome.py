"""How one attempt ended, and the one transaction that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from pruning_core.spec.report import Report
from store import leases
from store.artifacts import ArtifactRow
from store.leases import Claim
from store.presets import NewPreset
from store.states import Status
from worker.publish import missed_gates, result


@dataclass(frozen=True)
class Finished:
    """Everything is stored; the commit makes it visible."""

    report: Report
    artifacts: tuple[ArtifactRow, ...]
    preset: NewPreset | None = None


@dataclass(frozen=True)
class Refused:
    """An error that another attempt would meet again."""

    error: dict[str, Any]


@dataclass(frozen=True)
class Crashed:
    """The attempt was lost; another may succeed."""

    error: dict[str, Any]


@dataclass(frozen=True)
class GivenBack:
    """Through no fault of the job; the attempt does not count."""

    reason: str


@dataclass(frozen=True)
class Cancelled:
    """The user wanted it, and the child is gone."""


@dataclass(frozen=True)
class Fenced:
    """Another epoch owns the job; there is nothing to write."""


Outcome = Finished | Refused | Crashed | GivenBack | Cancelled | Fenced


def write(session: Session, claim: Claim, outcome: Outcome, *, max_crashes: int) -> Status | None:
    """Write the outcome under the claim's epoch and return the job's new status, None where it is another's.

    Raises:
        LeaseLost: the job belongs to another epoch, or has ended.
    """
    job_id, epoch = claim.job_id, claim.epoch
    match outcome:
        case Finished(report, artifacts, preset):
            return leases.finish(
                session,
                job_id,
                epoch,
                report=report.model_dump(mode="json"),
                result=result(report),
                artifacts=artifacts,
                preset=preset,
                error=missed_gates(report),
            )
        case Refused(error):
            return leases.fail(session, job_id, epoch, error)
        case Crashed(error):
            return leases.crashed(
                session,
                job_id,
                epoch,
                error=error,
                max_crashes=max_crashes,
                backoff=leases.rescue_backoff(claim.attempt - 1),
            )
        case GivenBack(reason):
            return leases.release(session, job_id, epoch, reason=reason)
        case Cancelled():
            return leases.cancelled(session, job_id, epoch)
        case Fenced():
            return None
