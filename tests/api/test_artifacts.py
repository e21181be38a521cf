"""Report, manifest and files of a finished job."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from store.local_artifacts import LocalArtifacts
from tests.api.jobs import BODY, FILES, REPORT, Service
from tests.api.problems import assert_problem

WEIGHTS = FILES["model.safetensors"]


@pytest.fixture
def url(client: TestClient, service: Service) -> str:
    job_id = client.post("/v1/jobs", json=BODY).json()["id"]
    service.succeed(service.claim())
    return f"/v1/jobs/{job_id}"


def test_report_is_the_stored_one(client: TestClient, url: str) -> None:
    assert client.get(f"{url}/report").json() == REPORT


def test_manifest_lists_every_file(client: TestClient, url: str) -> None:
    manifest = client.get(f"{url}/manifest").json()
    assert {file["path"] for file in manifest["files"]} == set(FILES)
    assert manifest["total_bytes"] == sum(map(len, FILES.values()))
    for file in manifest["files"]:
        content = client.get(file["url"]).content
        assert content == FILES[file["path"]]
        assert file["bytes"] == len(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()


def test_file_carries_its_digest_and_is_no_page(client: TestClient, url: str) -> None:
    response = client.get(f"{url}/artifacts/model.safetensors")
    digest = hashlib.sha256(WEIGHTS)
    assert response.headers["etag"] == f'"{digest.hexdigest()}"'
    encoded = base64.b64encode(digest.digest()).decode()
    assert response.headers["repr-digest"] == f"sha-256=:{encoded}:"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert response.headers["content-length"] == str(len(WEIGHTS))


def test_head_has_the_headers_alone(client: TestClient, url: str) -> None:
    response = client.head(f"{url}/artifacts/model.safetensors")
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == str(len(WEIGHTS))


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=10-19", 10, 20), ("bytes=1000-", 1000, len(WEIGHTS)), ("bytes=-7", -7, len(WEIGHTS))],
)
def test_range(client: TestClient, url: str, asked: str, first: int, last: int) -> None:
    response = client.get(f"{url}/artifacts/model.safetensors", headers={"Range": asked})
    assert response.status_code == 206
    assert response.content == WEIGHTS[first:last]
    assert response.headers["content-range"].endswith(f"/{len(WEIGHTS)}")


def test_if_range_sends_all_of_another_file(client: TestClient, url: str) -> None:
    path = f"{url}/artifacts/model.safetensors"
    etag = client.head(path).headers["etag"]
    same = client.get(path, headers={"Range": "bytes=5-", "If-Range": etag})
    other = client.get(path, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (same.status_code, same.content) == (206, WEIGHTS[5:])
    assert (other.status_code, other.content) == (200, WEIGHTS)


@pytest.mark.parametrize("asked", ["bytes=99999999999-", "bytes=-0", f"bytes={len(WEIGHTS)}-"])
def test_a_range_beyond_the_file_is_refused(client: TestClient, url: str, asked: str) -> None:
    response = client.get(f"{url}/artifacts/model.safetensors", headers={"Range": asked})
    assert_problem(response, 416, "RANGE_NOT_SATISFIABLE")
    assert response.headers["content-range"] == f"bytes */{len(WEIGHTS)}"


@pytest.mark.parametrize(
    "asked",
    [
        "lines=1-2",
        "items=0-5",
        "none",
        "",
        "=",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=x-y",
        "bytes=1-x",
        "bytes=5-2",
        "bytes=1.5-2",
        "bytes=0-1, 4-5",
        "bytes=" + "0-1," * 200,
        "bytes=" + "9" * 5000 + "-",
        "bytes=0-" + "9" * 5000,
        "bytes 0-1",
    ],
    ids=lambda asked: asked[:20],
)
def test_a_range_that_means_nothing_here_is_ignored(
    client: TestClient, url: str, asked: str
) -> None:
    response = client.get(f"{url}/artifacts/model.safetensors", headers={"Range": asked})
    assert (response.status_code, response.content == WEIGHTS) == (200, True)


def test_known_file_answers_304(client: TestClient, url: str) -> None:
    path = f"{url}/artifacts/model.safetensors"
    etag = client.head(path).headers["etag"]
    for header in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        assert client.get(path, headers={"If-None-Match": header}).status_code == 304
    assert client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "../../../../secateur.db",
        "..%2f..%2f..%2f..%2fsecateur.db",
        "/etc/passwd",
        "%00",
        "config.json%00",
        "model.safetensors/",
        "Config.json",
        "💣",
        "%ff",
        "",
    ],
)
def test_only_the_manifest_s_paths_are_served(client: TestClient, url: str, path: str) -> None:
    response = client.get(f"{url}/artifacts/{path}")
    assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")


def test_odd_names_are_quoted(client: TestClient, url: str) -> None:
    path = quote("sub folder/tokenizer ä.json")
    response = client.get(f"{url}/artifacts/{path}")
    assert response.content == FILES["sub folder/tokenizer ä.json"]
    assert response.headers["content-disposition"] == (
        "attachment; filename*=utf-8''tokenizer%20%C3%A4.json"
    )


def test_file_that_has_gone_is_404(client: TestClient, service: Service, url: str) -> None:
    for path in service.settings.artifacts_dir.rglob("config.json"):
        path.unlink()
    assert_problem(client.get(f"{url}/artifacts/config.json"), 404, "NOT_FOUND")


@pytest.mark.parametrize("what", ["report", "manifest", "artifacts/config.json"])
def test_unfinished_and_failed_jobs_have_no_result(
    client: TestClient, service: Service, what: str
) -> None:
    job_id = client.post("/v1/jobs", json=BODY).json()["id"]
    assert_problem(client.get(f"/v1/jobs/{job_id}/{what}"), 409, "STATE_CONFLICT")
    service.fail(service.claim())
    assert_problem(client.get(f"/v1/jobs/{job_id}/{what}"), 409, "STATE_CONFLICT")


class Elsewhere(LocalArtifacts):
    """A store whose files have URLs of their own."""

    def presign(self, key: str, *, filename: str, media_type: str) -> str:
        return f"https://bucket.example/{key}?name={filename}&type={media_type}"


def test_a_store_with_urls_of_its_own_sends_the_file_itself(service: Service) -> None:
    app = service.app()
    root = service.settings.artifacts_dir
    store = Elsewhere(root, app.state.parts.drafts)
    app.state.parts = dataclasses.replace(app.state.parts, artifacts=store)
    with TestClient(app, headers={"Authorization": f"Bearer {service.secret}"}) as client:
        job_id = client.post("/v1/jobs", json=BODY).json()["id"]
        claim = service.claim()
        service.succeed(claim, page="<p>")
        url = f"/v1/jobs/{job_id}/artifacts/model.safetensors"
        response = client.get(url, follow_redirects=False)
        assert response.status_code == 307
        assert response.headers["location"].startswith(
            f"https://bucket.example/jobs/{job_id}/e1/model.safetensors?name=model.safetensors"
        )
        assert response.headers["cache-control"] == "no-store"
        page = client.get(f"/v1/jobs/{job_id}/report.html", follow_redirects=False)
        assert (page.status_code, page.text) == (200, "<p>")  # its policy goes with it
