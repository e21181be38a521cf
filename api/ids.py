"""Identifiers in paths: what cannot be one names nothing, so it answers 404 and never reaches SQL."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Path

from api.problems import Problem

_JOB_ID = re.compile(r"^job_[0-9A-HJKMNP-TV-Z]{26}$")
_FILE_ID = re.compile(r"^file_[0-9A-HJKMNP-TV-Z]{26}$")


def _job_id(job_id: Annotated[str, Path(description="`job_` and a ULID")]) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise Problem("NOT_FOUND", "A job's id is `job_` followed by 26 characters.")
    return job_id


def _file_id(file_id: Annotated[str, Path(description="`file_` and a ULID")]) -> str:
    if not _FILE_ID.fullmatch(file_id):
        raise Problem("NOT_FOUND", "A file's id is `file_` followed by 26 characters.")
    return file_id


JobId = Annotated[str, Depends(_job_id)]
FileId = Annotated[str, Depends(_file_id)]
