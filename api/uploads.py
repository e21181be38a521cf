"""Receiving an upload: piece by piece onto the disk, bounded and hashed on the way, examined, kept."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from api import schemas
from api.deps import Caller, Parts
from api.problems import FieldError, Problem
from api.resources import upload_resource
from pruning_core.datasets import uploads
from pruning_core.datasets.file_formats import Format
from pruning_core.datasets.uploads import Examined
from store import files
from store.tables import new_id

FORMATS: Final[Mapping[str, Format]] = {
    "application/jsonl": "jsonl",
    "application/x-ndjson": "jsonl",
    "application/json": "json",
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "text/plain": "text",
}
FORM: Final = "multipart/form-data"
FORM_OVERHEAD = 65_536
"""Bytes of a form that are not the file."""
_UNKNOWN_TYPES = ("", "application/octet-stream")
"""What clients send for a file whose type they do not know."""
_PIECE = 1 << 20
_CHARSET = re.compile(r"charset\s*=\s*\"?(?P<name>[^\s;\"]+)", re.IGNORECASE)
_SHA256 = re.compile(r"(?:^|,)\s*sha-256=(?P<value>[^,]*)")


@dataclass(frozen=True)
class Received:
    """What arrived."""

    name: str
    use: uploads.Use
    format: Format | None
    bytes: int
    sha256: str


async def receive(
    request: Request, options: schemas.FileOptions, draft: Path, *, limit: int
) -> Received:
    """Write the request's file to `draft`.

    Raises:
        Problem: no type that is taken, compressed on the way, too large, cut off, or not what its digest says.
        RequestValidationError: the form's fields are wrong.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Problem(
            "CONTENT_TYPE_UNSUPPORTED",
            "Send the file as it is: an upload with a Content-Encoding is not taken.",
            headers={"Accept-Encoding": "identity"},
        )
    expected = _expected_digest(request.headers.get("repr-digest", ""))
    take = _take_form if _media_type(request.headers.get("content-type")) == FORM else _take_body
    try:
        received = await take(request, options, draft, limit)
    except ClientDisconnect:
        raise Problem("BODY_INCOMPLETE", "The connection ended before the body did.") from None
    if expected is not None and received.sha256 != expected.hex():
        raise Problem(
            "DIGEST_MISMATCH",
            f"The file that arrived has the sha256 {received.sha256}, Repr-Digest says {expected.hex()}.",
            suggestions=("send it again",),
        )
    return received


def keep(
    parts: Parts,
    caller: Caller,
    draft: Path,
    received: Received,
    examined: Examined,
) -> tuple[bool, schemas.File]:
    """Store a file that was found sound; return whether it is new to the project, and its resource."""
    file_id = new_id("file")
    key = files.key_of(file_id)
    # A commit whose answer is lost may have been made: bytes without a row do no harm, a row without bytes does.
    size, sha256 = parts.artifacts.put(draft, key)
    new = files.NewFile(
        id=file_id,
        name=received.name,
        use=received.use,
        format=examined.format,
        kind=examined.kind,
        items=examined.items,
        splits={split: size.model_dump() for split, size in examined.sizes(received.use).items()},
        bytes=size,
        sha256=sha256,
        key=key,
    )
    with parts.database.write() as session:
        row = files.create(session, new, project=caller.project, created_by=caller.key_id)
        resource = upload_resource(row)
    is_new = resource.id == file_id
    if not is_new:
        parts.artifacts.delete(key)
    return is_new, resource


async def _take_body(
    request: Request, options: schemas.FileOptions, draft: Path, limit: int
) -> Received:
    content_type = request.headers.get("content-type", "")
    chosen = FORMATS.get(_media_type(content_type))
    charset = _CHARSET.search(content_type)
    if chosen is None or (charset and charset["name"].lower() not in ("utf-8", "us-ascii")):
        raise _unsupported()
    size, sha256 = await _save(request.stream(), draft, limit)
    declared = request.headers.get("content-length")
    if declared is not None and declared != str(size):
        raise Problem(
            "BODY_INCOMPLETE", f"The body has {size} bytes, Content-Length says {declared[:20]}."
        )
    name = options.name or f"upload.{'txt' if chosen == 'text' else chosen}"
    return Received(name, options.use, chosen, size, sha256)


async def _take_form(
    request: Request, options: schemas.FileOptions, draft: Path, limit: int
) -> Received:
    try:
        form = await request.form(max_files=1, max_fields=2, max_part_size=FORM_OVERHEAD)
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise Problem("VALIDATION_FAILED", f"The form cannot be read: {error.detail}") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            detail = "required: a part with a file name"
            error_of = FieldError(pointer="/file", detail=detail)
            raise Problem("VALIDATION_FAILED", f"file: {detail}", errors=(error_of,))
        own_name = re.split(r"[/\\]", file.filename or "")[-1] or "upload"
        options = _with_fields(options, form, own_name)
        chosen = _format_of_part(file)
        size, sha256 = await _save(_pieces(file), draft, limit)
    finally:
        await form.close()
    assert options.name is not None
    return Received(options.name, options.use, chosen, size, sha256)


def _with_fields(
    options: schemas.FileOptions, form: FormData, own_name: str
) -> schemas.FileOptions:
    """Return the query's options with the form's fields over them."""
    fields: dict[str, Any] = {name: value for name, value in form.items() if name != "file"}
    given = {"name": own_name, **options.model_dump(exclude_unset=True), **fields}
    try:
        return schemas.FileOptions.model_validate(given)
    except ValidationError as error:
        errors = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(errors, body=given) from None


def _format_of_part(file: UploadFile) -> Format | None:
    media_type = _media_type(file.content_type)
    if media_type not in (*FORMATS, *_UNKNOWN_TYPES):
        raise _unsupported()
    return FORMATS.get(media_type)


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE):
        yield piece


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield larger pieces: each costs a hop to a thread, and a sender may send single bytes."""
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        if len(waiting) >= _PIECE:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


async def _save(pieces: AsyncIterator[bytes], draft: Path, limit: int) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with draft.open("wb") as file:
        async for piece in _gathered(pieces):
            size += len(piece)
            if size > limit:
                raise Problem(
                    "BODY_TOO_LARGE",
                    f"The file is larger than {limit} bytes.",
                    headers={"Connection": "close"},
                )
            digest.update(piece)
            await run_in_threadpool(file.write, piece)
    return size, digest.hexdigest()


def _media_type(header: str | None) -> str:
    return (header or "").partition(";")[0].strip().lower()


def _unsupported() -> Problem:
    types = ", ".join(FORMATS)
    return Problem(
        "CONTENT_TYPE_UNSUPPORTED",
        f"Send the file as {types} in UTF-8, or a form ({FORM}) with the parts `file` and `use`.",
        headers={"Accept": f"{types}, {FORM}"},
    )


def _expected_digest(header: str) -> bytes | None:
    """Return the sha256 that the sender states; other algorithms are passed over, as RFC 9530 asks."""
    match = _SHA256.search(header)
    if match is None:
        return None
    value = match["value"].strip()
    try:
        digest = base64.b64decode(value.strip(":"), validate=True)
    except binascii.Error:
        digest = b""
    if not re.fullmatch(r":[^:]+:", value) or len(digest) != hashlib.sha256().digest_size:
        detail = "sha-256=:<base64 of the 32 bytes>:"
        error = FieldError(parameter="Repr-Digest", detail=detail)
        raise Problem("VALIDATION_FAILED", f"Repr-Digest: {detail}", errors=(error,))
    return digest
