"""The Python client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import httpx2
from pydantic import BaseModel

from pruning_core.spec.prune import PruneSpec
from secateur import download, uploads
from secateur.config import find_credentials
from secateur.errors import ApiError, WaitTimeout
from secateur.models import Event, File, Inspection, Job, Manifest, Method, Preset, Task
from secateur.transport import RETRIED, Transport, pause

LONG_POLL = 20
"""Seconds for which one request waits for a change."""
EXAMINATION = 120
"""Seconds that the server may take to check every line of an upload."""
INSPECTION = 30
"""Seconds that the server may wait for the hub."""

A = TypeVar("A", bound=BaseModel)


class Client:
    """Talks to one Secateur server.

    Args:
        base_url: Unset: `SECATEUR_URL`, or the service that `secateur serve` runs on this machine.
        api_key: Unset: `SECATEUR_API_KEY`, or that service's own key.
        timeout: Seconds without a byte before a request counts as lost.
        retries: Further attempts after lost requests and answers that ask for patience.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 4,
    ) -> None:
        credentials = find_credentials(base_url, api_key)
        url = credentials.url.rstrip("/")
        self._transport = Transport(url, credentials.api_key, retries=retries, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def submit(
        self,
        model: str | Path,
        prune: PruneSpec | Mapping[str, Any],
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job; a lost answer never makes two of them.

        Args:
            model: `hf://org/name@revision`, `file:///path`, or a `Path` on the server's machine.
            prune: The specification, or a mapping with its shorthands.
            name: For people.
            labels: For finding it again.
            idempotency_key: Repeat it to mean the same job; unset, every call is a new one.
        """
        body: dict[str, Any] = {
            "model": _ref(model),
            "prune": prune.model_dump(mode="json") if isinstance(prune, PruneSpec) else dict(prune),
            "name": name,
            "labels": dict(labels or {}),
        }
        headers = {"Idempotency-Key": idempotency_key or str(uuid4())}
        return self._one(Job, "POST", "/v1/jobs", json=body, headers=headers)

    def get(self, job_id: str) -> Job:
        """Return the job as it is now."""
        return self._one(Job, "GET", f"/v1/jobs/{job_id}")

    def jobs(
        self,
        *,
        status: str | None = None,
        method: str | None = None,
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
        name: str | None = None,
        begins: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Job]:
        """Return jobs, newest first, page after page; at most `limit` of them. `begins`: how their ids begin."""
        params = _given(status=status, method=method, model=model, name=name, id=begins)
        params["label"] = [f"{key}:{value}" for key, value in (labels or {}).items()]
        return self._pages(Job, "/v1/jobs", params, limit)

    def cancel(self, job_id: str) -> Job:
        """Ask for the end of a job; a running one is `cancelling` until its process is gone."""
        headers = {"Idempotency-Key": str(uuid4())}
        return self._one(Job, "POST", f"/v1/jobs/{job_id}/cancel", headers=headers)

    def follow(self, job_id: str, *, timeout: float | None = None) -> Iterator[Job]:
        """Yield the job now and whenever it has changed, last of all when it has ended.

        Raises:
            WaitTimeout: it has not ended after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        job = self.get(job_id)
        yield job
        while not job.is_finished:
            left = LONG_POLL if deadline is None else min(LONG_POLL, deadline - time.monotonic())
            if left <= 0:
                raise WaitTimeout(f"{job_id} is still {job.status}", code="WAIT_TIMEOUT")
            changed = self._changed(job, wait=max(1, int(left)))
            if changed is not None:
                job = changed
                yield job

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """Return the job when it has ended, however it did; see `Job.raise_for_status`.

        Raises:
            WaitTimeout: it has not ended after `timeout` seconds.
        """
        *_, last = self.follow(job_id, timeout=timeout)
        return last

    def watch(self, job_id: str, *, after: str | None = None) -> Iterator[Event]:
        """Yield the job's events as they happen, up to its end; a broken stream is taken up where it broke."""
        failures = 0
        while True:
            lost: Exception | None = None
            try:
                for event in self._events(job_id, after):
                    failures, after = 0, event.id
                    yield event
            except httpx2.TransportError as error:
                lost = self._transport.unreachable(error)
            except ApiError as error:
                if error.status not in RETRIED:
                    raise
                lost = error
            if lost is None and self.get(job_id).is_finished:
                return
            failures += 1
            if lost is not None and failures > self._transport.retries:
                raise lost
            time.sleep(pause(failures))

    def report(self, job_id: str) -> dict[str, Any]:
        """Return what was measured before and after."""
        report: dict[str, Any] = self._transport.request("GET", f"/v1/jobs/{job_id}/report").json()
        return report

    def report_page(self, job_id: str) -> str:
        """Return the report as one HTML file that needs no other."""
        return self._transport.request("GET", f"/v1/jobs/{job_id}/report.html").text

    def manifest(self, job_id: str) -> Manifest:
        """Return every file of the checkpoint, with size and sha256."""
        return self._one(Manifest, "GET", f"/v1/jobs/{job_id}/manifest")

    def download(
        self,
        job_id: str,
        destination: str | Path | None = None,
        *,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Path:
        """Fetch the checkpoint into a folder, which appears when every sha256 has been checked.

        Args:
            job_id: A succeeded job.
            destination: Unset: a folder of the job's id in the current one.
            on_bytes: Told of every byte that need not be fetched any more, from several threads.

        Returns:
            The folder.

        Raises:
            DownloadError: the destination holds something else, or a file is not what the manifest says.
        """
        manifest = self.manifest(job_id)
        folder = Path(destination or job_id)
        return download.fetch(self._transport, manifest, folder, on_bytes or (lambda _: None))

    def upload(
        self,
        path: str | Path,
        *,
        use: str = "both",
        name: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> File:
        """Upload data of your own; the same bytes for the same use are stored once, so a repetition is harmless.

        Args:
            path: JSON Lines (`{"text"}`, or `{"question", "choices", "answer"}`), or plain text whose documents
                blank lines separate.
            use: `calibration`, `evaluation`, or `both`: a quarter of the items is held out for evaluation.
            name: For people. Unset: the file's own.
            on_bytes: Told of every byte sent; negative where a broken upload begins anew.

        Returns:
            The file; `task` is what a specification calls it.
        """
        path = Path(path)
        response = self._transport.request(
            "POST",
            "/v1/files",
            params={"name": name or path.name, "use": use},
            headers=uploads.headers(path),
            content=uploads.body(path, on_bytes or (lambda _: None)),
            patience=EXAMINATION,
        )
        return File.model_validate(response.json())

    def files(
        self,
        *,
        use: str | None = None,
        name: str | None = None,
        begins: str | None = None,
        limit: int | None = None,
    ) -> Iterator[File]:
        """Return uploaded files, newest first, page after page; at most `limit` of them. `begins`: how their ids begin."""
        return self._pages(File, "/v1/files", _given(use=use, name=name, id=begins), limit)

    def file(self, file_id: str) -> File:
        """Return one uploaded file's facts, by its id or by its name in specifications."""
        return self._one(File, "GET", f"/v1/files/{file_id.removeprefix('file:')}")

    def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file that no unfinished job names."""
        self._transport.request("DELETE", f"/v1/files/{file_id.removeprefix('file:')}")

    def methods(self) -> Sequence[Method]:
        """Return the catalogue of methods."""
        return self._many(Method, "/v1/methods")

    def tasks(self) -> Sequence[Task]:
        """Return the catalogue of calibration tasks."""
        return self._many(Task, "/v1/tasks")

    def presets(self) -> Sequence[Preset]:
        """Return the presets of CRePE's coefficients: those that ship, and those that this project's jobs found."""
        return self._many(Preset, "/v1/presets")

    def inspect(
        self, model: str | Path, *, revision: str | None = None, multiple_of: Sequence[int] = ()
    ) -> Inspection:
        """Return what a model is and which sizes it can be cut to; no weight is read.

        Args:
            model: As `submit` takes it.
            revision: Branch, tag or commit on the hub.
            multiple_of: Of which widths shall be multiples. Unset: 8, 64 and 128.
        """
        params: dict[str, Any] = {"ref": _ref(model), "multiple_of": list(multiple_of)}
        if revision is not None:
            params["revision"] = revision
        response = self._transport.request(
            "GET", "/v1/models/inspect", params=params, patience=INSPECTION
        )
        return Inspection.model_validate(response.json())

    def _events(self, job_id: str, after: str | None) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": after} if after else {})}
        with self._transport.stream(f"/v1/jobs/{job_id}/events", headers) as response:
            for message in httpx2.EventSource(response):
                if message.data:
                    yield Event.model_validate_json(message.data)

    def _changed(self, job: Job, *, wait: int) -> Job | None:
        response = self._transport.request(
            "GET",
            f"/v1/jobs/{job.id}",
            params={"wait": wait},
            headers={"If-None-Match": job.etag},
            patience=wait,
        )
        return None if response.status_code == 304 else Job.model_validate(response.json())

    def _pages(
        self, kind: type[A], path: str, params: Mapping[str, Any], limit: int | None
    ) -> Iterator[A]:
        asked = {**params, "limit": min(limit or 100, 100)}
        left = limit
        while left is None or left > 0:
            page = self._transport.request("GET", path, params=asked).json()
            for item in page["data"][:left]:
                yield kind.model_validate(item)
            left = None if left is None else left - len(page["data"])
            if page["next_cursor"] is None:
                return
            asked["cursor"] = page["next_cursor"]

    def _one(
        self,
        kind: type[A],
        method: str,
        path: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> A:
        response = self._transport.request(method, path, json=json, headers=headers)
        return kind.model_validate(response.json())

    def _many(self, kind: type[A], path: str) -> Sequence[A]:
        page = self._transport.request("GET", path).json()
        return [kind.model_validate(item) for item in page["data"]]


def _given(**params: Any) -> dict[str, Any]:
    return {key: value for key, value in params.items() if value is not None}


def _ref(model: str | Path) -> str:
    return model.absolute().as_uri() if isinstance(model, Path) else model
