"""The client against a real server process."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Timer

import pytest

import secateur
from pruning_core.spec.prune import PruneSpec
from secateur import (
    Client,
    Conflict,
    ConnectionFailed,
    Invalid,
    JobFailed,
    NotFound,
    Unauthenticated,
    WaitTimeout,
    models,
)
from store import states
from tests.api.jobs import COEFFICIENTS, NAMING, PRESET, REPORT, SAVING, Service
from tests.secateur.proxy import Proxy
from tests.servers import free_port

MODEL = "hf://org/model"
PRUNE = {"method": "wanda", "sparsity": 0.5}


def test_submit_read_list_cancel(client: Client) -> None:
    job = client.submit(MODEL, PRUNE, name="mine", labels={"team": "edge"})
    assert job.status == "queued"
    assert job.spec["prune"]["pattern"] == {"name": "row"}
    assert client.get(job.id).queue == {"position": 1}
    assert [found.id for found in client.jobs(labels={"team": "edge"})] == [job.id]
    assert list(client.jobs(labels={"team": "other"})) == []
    assert client.cancel(job.id).status == "cancelled"
    with pytest.raises(Conflict) as caught:
        client.cancel(job.id)
    assert caught.value.code == "STATE_CONFLICT"


def test_specification_may_be_an_object_and_the_model_a_path(
    client: Client, tmp_path: Path
) -> None:
    spec = PruneSpec.model_validate(PRUNE)
    echoed = spec.model_dump(mode="json")
    echoed["calibration"]["default_samples"] = 128
    assert client.submit(MODEL, spec).spec["prune"] == echoed
    with pytest.raises(secateur.Forbidden) as caught:
        client.submit(tmp_path / "a model", spec)
    assert caught.value.code == "MODEL_NOT_ALLOWED"


def test_list_goes_through_the_pages(client: Client) -> None:
    made = [client.submit(MODEL, PRUNE).id for _ in range(7)]
    assert [job.id for job in client.jobs(limit=3)] == made[:-4:-1]
    assert [job.id for job in client.jobs()] == made[::-1]


def test_problem_becomes_a_typed_exception(client: Client) -> None:
    with pytest.raises(Invalid) as caught:
        client.submit(MODEL, {"method": "wanda", "sparcity": 0.5})
    error = caught.value
    assert (error.status, error.code) == (422, "VALIDATION_FAILED")
    assert error.errors[0]["pointer"] == "/prune/sparcity"
    assert error.suggestions == ("did you mean `prune.sparsity`?",)
    assert error.request_id
    with pytest.raises(NotFound):
        client.get("job_01JDA2M9Q4XW5S8ZK6B7C3D1EF")


def test_wrong_key(url: str) -> None:
    with Client(url, "pk_live_wrong") as client, pytest.raises(Unauthenticated):
        next(client.jobs())


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}", "x", retries=1) as client,
        pytest.raises(ConnectionFailed) as caught,
    ):
        client.methods()
    assert caught.value.code == "UNREACHABLE"


def test_lost_answer_makes_no_second_job(proxied: Client, client: Client, proxy: Proxy) -> None:
    proxy.cuts = [10, 200]
    job = proxied.submit(MODEL, PRUNE)
    assert proxy.connections == 3
    assert [found.id for found in client.jobs()] == [job.id]


def test_catalogues(client: Client) -> None:
    assert {"wanda", "magnitude"} <= {method.name for method in client.methods()}
    assert "python_docs" in {task.name for task in client.tasks()}


def test_presets_are_stored_listed_and_named(client: Client, service: Service) -> None:
    search = client.submit(MODEL, SAVING["prune"])
    service.succeed(service.claim(), {}, preset=PRESET)
    preset = {preset.name: preset for preset in client.presets()}["mine"]
    assert preset.coefficients == COEFFICIENTS
    assert (preset.job_id, preset.found) == (search.id, PRESET.coefficients["found"])
    assert preset.created_at is not None
    assert client.submit(MODEL, NAMING["prune"]).spec["prune"]["method"]["alpha"] == 0.7321
    with pytest.raises(Conflict) as caught:
        client.submit(MODEL, SAVING["prune"])
    assert caught.value.code == "PRESET_EXISTS"
    with pytest.raises(Invalid) as refused:
        client.submit(MODEL, {"method": {"name": "crepe", "preset": "other"}, "sparsity": 0.5})
    assert refused.value.code == "PRESET_NOT_FOUND"


def test_wait_returns_the_end_and_raises_only_when_asked(client: Client, service: Service) -> None:
    job = client.submit(MODEL, PRUNE)
    Timer(0.5, lambda: service.fail(service.claim())).start()
    ended = client.wait(job.id, timeout=30)
    assert ended.status == "failed"
    with pytest.raises(JobFailed) as caught:
        ended.raise_for_status()
    assert caught.value.code == "MODEL_NOT_FINITE"
    assert caught.value.suggestions == ("use another checkpoint",)


def test_wait_gives_up_in_time(client: Client) -> None:
    job = client.submit(MODEL, PRUNE)
    started = time.monotonic()
    with pytest.raises(WaitTimeout):
        client.wait(job.id, timeout=1)
    assert time.monotonic() - started < 5


def test_follow_shows_every_change_on_the_way(client: Client, service: Service) -> None:
    job = client.submit(MODEL, PRUNE)
    seen = []
    for now in client.follow(job.id, timeout=60):
        seen.append((now.status, now.progress.percent if now.progress else None))
        match len(seen):
            case 1:
                claim = service.claim()
                service.progress(claim, 1, block=False)
            case 2:
                service.progress(claim, 2)
            case 3:
                service.succeed(claim)
    assert seen == [("queued", None), ("running", 25), ("running", 50), ("succeeded", 50)]
    assert client.report(job.id) == REPORT


def test_watch_yields_every_event_once(client: Client, service: Service) -> None:
    job = client.submit(MODEL, PRUNE)
    types = []
    for event in client.watch(job.id):
        types.append(event.type)
        if event.type == "job.queued":
            claim = service.claim()
            service.progress(claim, 1)
            service.succeed(claim)
    assert types == ["job.queued", "job.started", "job.progress", "job.succeeded"]


def test_watch_goes_on_where_the_connection_broke(
    proxied: Client, service: Service, proxy: Proxy
) -> None:
    job = proxied.submit(MODEL, PRUNE)
    claim = service.claim()
    for step in (1, 2, 3, 4):
        service.progress(claim, step)
    service.succeed(claim)
    proxied.close()
    with Client(proxy.url, service.secret) as fresh:
        proxy.cuts = [700, 900, 40]
        events = list(fresh.watch(job.id))
    assert proxy.cuts == []
    ids = [event.id for event in events]
    assert len(ids) == len(set(ids)) == 7
    assert ids == sorted(ids)
    assert b"last-event-id: evt_" in proxy.received.lower()


def test_watch_of_an_unknown_job(client: Client) -> None:
    with pytest.raises(NotFound):
        next(client.watch("job_01JDA2M9Q4XW5S8ZK6B7C3D1EF"))


def test_public_names_are_there() -> None:
    assert all(hasattr(secateur, name) for name in secateur.__all__)


def test_the_client_knows_when_a_job_has_ended() -> None:
    assert models.TERMINAL == states.TERMINAL
