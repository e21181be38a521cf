"""What the store refuses: each with a stable code and a message that names the fix."""

from __future__ import annotations

from typing import ClassVar


class StoreError(Exception):
    """The root of the tree; `code` is stable, messages may change."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class JobNotFound(StoreError):
    """No job of this id in this project."""

    code = "NOT_FOUND"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id} in this project: GET /v1/jobs lists those there are")


class ArtifactNotFound(StoreError):
    """The job has no file of this path, or the key leads out of the artifact store."""

    code = "NOT_FOUND"


class FileUnknown(StoreError):
    """No uploaded file of this id in this project."""

    code = "NOT_FOUND"

    def __init__(self, file_id: str) -> None:
        super().__init__(f"no file {file_id} in this project: GET /v1/files lists those there are")


class FileInUse(StoreError):
    """A job that waits or runs names the file."""

    code = "FILE_IN_USE"


class StateConflict(StoreError):
    """The job's status does not allow what was asked."""

    code = "STATE_CONFLICT"


class IdempotencyConflict(StoreError):
    """The same Idempotency-Key came with another request."""

    code = "IDEMPOTENCY_CONFLICT"


class LeaseLost(StoreError):
    """The attempt is no longer the one that holds the job: nothing was written, stop the child."""

    code = "LEASE_LOST"


class InvalidCursor(StoreError):
    """The cursor is not ours, or the filters changed between pages."""

    code = "CURSOR_INVALID"


class KeyInvalid(StoreError):
    """No such API key, or it is revoked or expired."""

    code = "UNAUTHENTICATED"


class KeyNotFound(StoreError):
    """No API key of this id."""

    code = "NOT_FOUND"
