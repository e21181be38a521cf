"""Presets through HTTP: named, stored, listed; each project has its own."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from pruning_core.admission.presets import shipped
from tests.api.jobs import BODY, COEFFICIENTS, NAMING, PRESET, SAVING, Service

CREPE = {**BODY, **NAMING}
SEARCH = {**BODY, **SAVING}


def store_preset(client: TestClient, service: Service) -> str:
    """Submit a search and end it as a worker would; return the job's id."""
    response = client.post("/v1/jobs", json=SEARCH)
    assert response.status_code == 202, response.text
    service.succeed(service.claim(), {}, preset=PRESET)
    return str(response.json()["id"])


def listed(client: TestClient, **headers: str) -> dict[str, dict[str, Any]]:
    page = client.get("/v1/presets", headers=headers).json()
    assert (page["object"], page["has_more"]) == ("list", False)
    names = [preset["name"] for preset in page["data"]]
    assert names == sorted(names)
    return {preset["name"]: preset for preset in page["data"]}


def test_a_stored_preset_is_expanded_before_the_job_is_stored(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    store_preset(client_on_both, service_on_both)
    named = client_on_both.post("/v1/jobs", json=CREPE)
    assert named.status_code == 202, named.text
    method = named.json()["spec"]["prune"]["method"]
    assert method["preset"] is None
    assert {key: method[key] for key in COEFFICIENTS} == COEFFICIENTS
    assert service_on_both.claim().spec == named.json()["spec"]
    spelled = {**BODY, "prune": {**CREPE["prune"], "method": {"name": "crepe", **COEFFICIENTS}}}
    same = client_on_both.post("/v1/jobs", json=spelled).json()
    assert same["spec_digest"] == named.json()["spec_digest"]


def test_list_holds_what_ships_and_what_was_stored(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    before = listed(client_on_both)
    assert set(before) == set(shipped())
    assert all(
        (preset["job_id"], preset["created_at"]) == (None, None) for preset in before.values()
    )
    job_id = store_preset(client_on_both, service_on_both)
    after = listed(client_on_both)
    created_at = after["mine"].pop("created_at")
    assert created_at.endswith("Z")
    assert after.pop("mine") == {
        "name": "mine",
        "object": "preset",
        "coefficients": COEFFICIENTS,
        "found": PRESET.coefficients["found"],
        "job_id": job_id,
    }
    assert after == before


def test_an_unknown_preset_is_refused(client: TestClient) -> None:
    response = client.post("/v1/jobs", json=CREPE)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "PRESET_NOT_FOUND")
    assert problem["class"] == "user"
    assert problem["errors"][0]["pointer"] == "/prune/method/preset"
    assert client.get("/v1/jobs").json()["data"] == []


def test_a_name_that_is_taken_is_refused(client: TestClient, service: Service) -> None:
    store_preset(client, service)
    response = client.post("/v1/jobs", json=SEARCH)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (409, "PRESET_EXISTS")
    assert problem["errors"][0]["pointer"] == "/prune/method/search/save_as"
    assert len(client.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize("name", shipped())
def test_a_name_that_ships_is_taken(client: TestClient, name: str) -> None:
    method = {"name": "crepe", "search": {"name": "pho", "save_as": name}}
    response = client.post("/v1/jobs", json={**BODY, "prune": {"method": method, "sparsity": 0.5}})
    assert (response.status_code, response.json()["code"]) == (409, "PRESET_EXISTS")


def test_a_refusal_does_not_use_up_its_idempotency_key(
    client: TestClient, service: Service
) -> None:
    headers = {"Idempotency-Key": "a-key"}
    assert client.post("/v1/jobs", json=CREPE, headers=headers).status_code == 422
    store_preset(client, service)
    assert client.post("/v1/jobs", json=CREPE, headers=headers).status_code == 202
    fresh = client.post("/v1/jobs", json=SEARCH, headers={"Idempotency-Key": "b-key"})
    assert fresh.json()["code"] == "PRESET_EXISTS"


def test_replay_of_a_search_is_answered_after_it_stored_its_preset(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    headers = {"Idempotency-Key": "a-key"}
    first = client_on_both.post("/v1/jobs", json=SEARCH, headers=headers)
    service_on_both.succeed(service_on_both.claim(), {}, preset=PRESET)
    second = client_on_both.post("/v1/jobs", json=SEARCH, headers=headers)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["idempotency-replayed"] == "true"


def test_another_project_neither_sees_nor_names_nor_lacks_it(
    client_on_both: TestClient, service_on_both: Service
) -> None:
    store_preset(client_on_both, service_on_both)
    other = {"Authorization": f"Bearer {service_on_both.key(project='prj_b')}"}
    assert set(listed(client_on_both, **other)) == set(shipped())
    response = client_on_both.post("/v1/jobs", json=CREPE, headers=other)
    assert (response.status_code, response.json()["code"]) == (422, "PRESET_NOT_FOUND")
    assert "mine" not in response.json()["detail"].partition(";")[2]
    assert client_on_both.post("/v1/jobs", json=SEARCH, headers=other).status_code == 202


def test_another_key_of_the_project_may_use_it(client: TestClient, service: Service) -> None:
    store_preset(client, service)
    other = {"Authorization": f"Bearer {service.key(scopes=('jobs:write',))}"}
    assert client.post("/v1/jobs", json=CREPE, headers=other).status_code == 202
