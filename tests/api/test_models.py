"""`GET /v1/models/inspect`: what a model is and what can be cut from it, on this machine and on a hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file

from pruning_core.checkpoints import headers, weight_files
from pruning_core.fetch import hub_model
from tests import gguf_files, tiny
from tests.api.conftest import Declared, opened
from tests.api.jobs import Service
from tests.api.problems import assert_problem
from tests.pruning_core.hub_stand_in import COMMIT, Handler, Hub, serving

PATH = "/v1/models/inspect"
WEIGHTS = "model.safetensors"
WIDE: dict[str, Any] = {
    "hidden_size": 144,
    "intermediate_size": 14336,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "num_hidden_layers": 1,
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound checkpoints; tests that damage one take a copy."""
    root = tmp_path_factory.mktemp("models")
    for model_type in ("llama", "gpt2", "mixtral"):
        tiny.save(root / model_type, model_type)
    tiny.save(root / "wide", "llama", **WIDE)
    return root


@pytest.fixture
def client(
    sqlite_database_url: str, tmp_path: Path, roots: Path, declared: Declared
) -> Iterator[TestClient]:
    """In the place of the plain one: local models are allowed."""
    service = Service.over(sqlite_database_url, tmp_path, model_roots=(roots, tmp_path))
    yield from opened(service, declared)
    service.database.dispose()


class RangedHandler(Handler):
    """Honours ranges, as hubs do."""

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True
    ) -> None:
        asked = self.headers.get("Range")
        if status == 200 and asked is not None:
            last = min(int(asked.rpartition("-")[2]), len(content) - 1)
            headers = headers | {"Content-Range": f"bytes 0-{last}/{len(content)}"}
            status, content = 206, content[: last + 1]
        super()._send(status, content, headers, body=body)


@pytest.fixture
def hub(roots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    sharded, pickled, empty = (tmp_path / name for name in ("sharded", "pickled", "empty"))
    tiny.build("llama").save_pretrained(sharded, max_shard_size="40KB")
    for folder in (pickled, empty):
        shutil.copytree(roots / "llama", folder, ignore=shutil.ignore_patterns(WEIGHTS))
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04")
    repos = {f"org/{path.name}": path for path in (roots / "llama", sharded, pickled, empty)}
    with serving(repos) as server:
        server.RequestHandlerClass = RangedHandler
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def inspect(client: TestClient, ref: str, **query: Any) -> dict[str, Any]:
    response = client.get(PATH, params={"ref": ref, **query})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def axes(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {axis["name"]: axis for axis in found["axes"]}


def test_what_lies_beside_a_model_is_told_before_a_job(client: TestClient, roots: Path) -> None:
    folder = shutil.copytree(roots / "llama", roots / "beside")
    tensors = load_file(folder / WEIGHTS)
    tensors["v_head.summary.weight"] = torch.ones(1, 32)
    tensors["medusa_head.0.linear.weight"] = torch.ones(32, 32)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    first, cut, left_out = inspect(client, f"file://{folder}")["notes"]
    assert "medusa_head.0.linear.weight, v_head.summary.weight" in first
    told = {one.rpartition(": ")[2]: one for one in (cut, left_out)}
    assert "are cut alike" in told["v_head.summary.weight."]
    assert "are left out" in told["medusa_head.0.linear.weight."]


def test_a_local_model_is_described(client: TestClient, roots: Path) -> None:
    found = inspect(client, f"file://{roots}/llama")
    described = {key: value for key, value in found.items() if key not in ("axes", "methods")}
    assert described == {
        "object": "model.inspection",
        "notes": [],
        "ref": f"file://{roots}/llama",
        "revision": None,
        "commit": None,
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "family": "llama",
        "parameters": 42464,
        "bytes": 4 * 42464,
        "dtype": "F32",
        "blocks": 3,
        "max_positions": 256,
        "tied_embeddings": False,
        "query_heads": 4,
        "query_heads_per_group": 2,
        "head_dim": 8,
    }
    sizes = {name: axis["size"] for name, axis in axes(found).items()}
    whole = {"hidden": 32, "neurons": 48, "kv_groups": 2, "layers": 3, "vocabulary": 300}
    assert sizes == whole


def test_wide_axes_are_ranges_and_narrow_ones_are_listed(client: TestClient, roots: Path) -> None:
    found = axes(inspect(client, f"file://{roots}/wide"))
    neurons = found["neurons"]["kept"]
    assert [kept["multiple_of"] for kept in neurons] == [8, 64, 128]
    expected = {
        "multiple_of": 128,
        "count": 111,
        "from": 128,
        "to": 14208,
        "step": 128,
        "sizes": None,
    }
    assert neurons[2] == expected
    (groups,) = found["kv_groups"]["kept"]
    assert groups["multiple_of"] is None
    assert [kept["size"] for kept in groups["sizes"]] == [1, 2]
    shares = [kept["share"] for kept in groups["sizes"]]
    assert shares == pytest.approx([2 * shares[1], shares[1]], abs=2e-6)  # rounded to 6 places
    hidden = {kept["multiple_of"]: kept for kept in found["hidden"]["kept"]}
    assert [kept["size"] for kept in hidden[8]["sizes"]] == [72]  # 8 and 9 divide it
    assert hidden[64] == {
        "multiple_of": 64, "count": 0, "from": None, "to": None, "step": None, "sizes": [],
    }  # fmt: skip


def test_costs_and_shares_are_of_the_whole_model(client: TestClient, roots: Path) -> None:
    found = inspect(client, f"file://{roots}/llama", multiple_of=16)
    by_name = axes(found)
    assert by_name["neurons"]["unit_parameters"] == 3 * 32 * 3
    assert by_name["kv_groups"]["unit_parameters"] == 3 * (2 + 1 + 1 + 2) * 8 * 32
    assert by_name["vocabulary"]["unit_parameters"] == 2 * 32
    assert by_name["neurons"]["largest_share"] == round(32 * 288 / found["parameters"], 6)
    assert by_name["neurons"]["kept"][0]["sizes"][0]["size"] == 16


def test_rules_and_refusals_are_told(client: TestClient, roots: Path) -> None:
    llama, gpt2 = (axes(inspect(client, f"file://{roots}/{name}")) for name in ("llama", "gpt2"))
    assert "divisible by num_attention_heads (4): llama refuses" in llama["hidden"]["rule"]
    assert gpt2["neurons"]["removable"]
    for kind, word in (("hidden", "LayerNorm"), ("kv_groups", "head")):
        axis = gpt2[kind]
        assert (axis["removable"], axis["rule"], axis["largest_share"]) == (False, None, 0)
        assert word in axis["reason"]
        assert all(kept["count"] == 0 for kept in axis["kept"])


def test_methods_that_apply_are_named(client: TestClient, roots: Path) -> None:
    fits = {fit["name"]: fit for fit in inspect(client, f"file://{roots}/gpt2")["methods"]}
    listed = client.get("/v1/methods").json()["data"]
    assert set(fits) == {method["name"] for method in listed if method["kind"] == "units"}
    assert fits["layer_drop"] == {
        "name": "layer_drop", "possible": True, "units": ["layers"], "reason": None,
    }  # fmt: skip
    assert fits["diet"]["units"] == ["neurons"]
    assert "LayerNorm" in fits["diet"]["reason"]
    assert set(fits["contextual"]["units"]) == {"neurons", "vocabulary"}


def test_experts_cost_what_all_of_them_hold(client: TestClient, roots: Path) -> None:
    neurons = axes(inspect(client, f"file://{roots}/mixtral"))["neurons"]
    assert neurons["unit_parameters"] == 4 * 3 * 32 * 3


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ({}, "ref"),
        ({"ref": "org/name"}, "ref"),
        ({"ref": "hf://org/name@main", "revision": "v1"}, "ref"),
        ({"ref": "file:///x", "revision": "v1"}, "ref"),
        ({"ref": "hf://org/name", "revision": "a b"}, "revision"),
        ({"ref": "hf://org/name", "multiple_of": 0}, "multiple_of.0"),
        ({"ref": "hf://org/name", "multiple_of": list(range(1, 10))}, "multiple_of"),
        ({"ref": "hf://org/name", "model": "x"}, "model"),
    ],
)
def test_a_wrong_query_is_refused(
    query: dict[str, Any], parameter: str, client: TestClient
) -> None:
    problem = assert_problem(client.get(PATH, params=query), 422, "VALIDATION_FAILED")
    assert problem["errors"][0]["parameter"] == parameter


def test_no_key_no_answer(client: TestClient) -> None:
    client.headers.pop("Authorization")
    assert_problem(client.get(PATH, params={"ref": "hf://org/name"}), 401, "UNAUTHENTICATED")


def test_local_paths_are_bound_as_at_submit(
    client: TestClient, roots: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(roots / "llama", tmp_path / "linked")
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/etc/hostname")
    for ref, status, code in (
        ("file:///etc", 403, "MODEL_NOT_ALLOWED"),
        (f"file://{tmp_path}/nothing", 422, "MODEL_NOT_FOUND"),
        (f"file://{folder}", 403, "MODEL_NOT_ALLOWED"),
    ):
        assert_problem(client.get(PATH, params={"ref": ref}), status, code)


def test_contradictions_are_problems(client: TestClient, roots: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(roots / "llama", tmp_path / "odd")
    config = json.loads((folder / "config.json").read_bytes()) | {"num_attention_heads": 1024}
    (folder / "config.json").write_text(json.dumps(config))
    assert_problem(client.get(PATH, params={"ref": f"file://{folder}"}), 422, "MODEL_INVALID")


def test_a_gguf_file_is_what_its_checkpoint_is(
    client: TestClient, roots: Path, tmp_path: Path
) -> None:
    model = tiny.build("llama")
    path = gguf_files.write(tmp_path / "m.gguf", model, kind=GGMLQuantizationType.F16)
    found = inspect(client, f"file://{path}")
    local = inspect(client, f"file://{roots}/llama")
    own = {"ref": f"file://{path}", "bytes": path.stat().st_size, "dtype": "F16"}
    assert found == local | own
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    response = client.get(PATH, params={"ref": f"file://{tmp_path}/broken.gguf"})
    assert_problem(response, 422, "MODEL_INVALID")


@pytest.mark.parametrize("name", ["llama", "sharded"])
def test_a_model_of_the_hub_is_what_its_folder_is(
    name: str, client: TestClient, hub: Hub, roots: Path
) -> None:
    local = inspect(client, f"file://{roots}/llama")
    found = inspect(client, f"hf://org/{name}@v1")
    told = {"ref": f"hf://org/{name}", "revision": "v1", "commit": COMMIT}
    assert found == local | told
    assert {"tokenizer.json", "generation_config.json"}.isdisjoint(hub.fetched)


def test_long_headers_are_fetched_whole_and_ranges_may_be_ignored(
    client: TestClient, hub: Hub, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_model, "FIRST_BYTES", 100)
    assert inspect(client, "hf://org/llama")["parameters"] == 42464
    assert hub.fetched.count(WEIGHTS) == 2
    hub.RequestHandlerClass = Handler
    monkeypatch.setattr(hub_model, "FIRST_BYTES", 1 << 20)
    assert inspect(client, "hf://org/llama")["parameters"] == 42464


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("hf://org/gated", "MODEL_GATED"),
        ("hf://org/nowhere", "MODEL_NOT_FOUND"),
        ("hf://org/llama@nowhere", "MODEL_NOT_FOUND"),
        ("hf://org/pickled", "UNSAFE_PICKLE"),
        ("hf://org/empty", "MODEL_INVALID"),
    ],
)
def test_what_the_hub_refuses_has_its_own_code(
    ref: str, code: str, client: TestClient, hub: Hub
) -> None:
    assert_problem(client.get(PATH, params={"ref": ref}), 422, code)


@pytest.mark.parametrize(
    ("repo", "module", "name", "limit", "code"),
    [
        ("llama", headers, "MAX_HEADER_BYTES", 500, "MODEL_INVALID"),
        ("sharded", headers, "MAX_HEADER_BYTES", 500, "MODEL_INVALID"),
        ("sharded", weight_files, "MAX_SHARDS", 1, "MODEL_INVALID"),
        ("llama", hub_model, "MAX_CONFIG_BYTES", 50, "MODEL_INVALID"),
        ("llama", hub_model, "TOTAL_SECONDS", -1, "HUB_UNAVAILABLE"),
    ],
)
def test_what_is_fetched_is_bounded(
    repo: str,
    module: ModuleType,
    name: str,
    limit: int,
    code: str,
    client: TestClient,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, limit)
    problem = client.get(PATH, params={"ref": f"hf://org/{repo}"}).json()
    assert problem["code"] == code


@pytest.mark.parametrize(
    ("ref", "code"),
    [
        ("hf://org/llama@nope", "MODEL_NOT_FOUND"),
        ("hf://org/nowhere", "MODEL_NOT_FOUND"),
        ("hf://org/gated", "MODEL_GATED"),
    ],
)
def test_what_the_hub_does_not_have_is_refused_at_submit(
    ref: str, code: str, client: TestClient, hub: Hub
) -> None:
    told = client.app.state.parts.hub  # type: ignore[attr-defined]
    job = {"model": ref, "prune": {"method": "magnitude", "sparsity": 0.5}}
    told.address = "http://127.0.0.1:9"
    assert client.post("/v1/jobs", json=job).status_code == 202
    told.address, told._asked_at = hub.url, float("-inf")
    assert_problem(client.post("/v1/jobs", json=job), 422, code)
    assert client.post("/v1/jobs", json=job | {"model": "hf://org/llama@v1"}).status_code == 202


def test_what_the_headers_of_a_hub_model_tell_is_refused_at_submit(
    client: TestClient, hub: Hub, roots: Path
) -> None:
    told = client.app.state.parts.hub  # type: ignore[attr-defined]
    told.address, told._asked_at = hub.url, float("-inf")

    def submit(**prune: Any) -> Any:
        return client.post("/v1/jobs", json={"model": "hf://org/llama", "prune": prune})

    odd = {"name": "n:m", "n": 3, "m": 7}
    assert_problem(submit(method="magnitude", pattern=odd), 422, "PATTERN_UNSUPPORTED")
    tiny_budget = {"method": "layer_drop", "budget": {"parameters": 1}}
    assert_problem(submit(**tiny_budget), 422, "SIZE_UNREACHABLE")
    assert submit(method="magnitude", sparsity=0.5).status_code == 202
    path = roots / "llama" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert_problem(submit(method="magnitude", sparsity=0.5), 422, "MODEL_INVALID")


def test_a_truncated_file_of_the_hub_is_refused(
    client: TestClient, hub: Hub, tmp_path: Path
) -> None:
    path = next((tmp_path / "sharded").glob("*-00002-*.safetensors"))
    path.write_bytes(path.read_bytes()[:-8])
    response = client.get(PATH, params={"ref": "hf://org/sharded"})
    assert_problem(response, 422, "MODEL_INVALID")


def test_a_hub_that_is_away_or_off_may_be_tried_again(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    query = {"ref": "hf://org/llama"}
    problem = assert_problem(client.get(PATH, params=query), 503, "HUB_UNAVAILABLE")
    assert problem["retryable"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    problem = assert_problem(client.get(PATH, params=query), 503, "HUB_UNAVAILABLE")
    assert "HF_HUB_OFFLINE" in problem["detail"]
