"""Headers and configurations of strangers: nothing is computed of them before it is known to be small."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest

from pruning_core.checkpoints.config import parse_config
from pruning_core.checkpoints.headers import MAX_TENSORS, parse_header
from pruning_core.checkpoints.weight_files import parse_index
from pruning_core.errors import ModelInvalid

NINES = "9" * 4_300
"""The longest number that Python reads at all."""
LLAMA = '"model_type": "llama", "num_hidden_layers": 1'


def repeated(one: str, count: int) -> str:
    return ",".join(one.replace("#", f"{place:x}") for place in range(count))


def entry(shape: str, offsets: str = "[0,4]", dtype: str = '"F32"') -> str:
    return f'{{"t":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}'


HEADERS = {
    "sides of thousands of digits": entry(f"[{','.join([NINES] * 230)}]"),
    "one side of as many": entry(f"[{NINES}]"),
    "sides below the longest number": entry(f"[{','.join(['9' * 18] * 50_000)}]"),
    "offsets of as many": entry("[1]", f"[{NINES},{NINES}]"),
    "a negative side": entry(f"[-{NINES}]"),
    "empty entries": "{" + repeated('"#":{}', 2_000_000) + "}",
    "entries that are numbers": "{" + repeated('"#":0', 2_000_000) + "}",
    "empty lists": '{"t":[' + ",".join(["[]"] * 8_000_000) + "]}",
    "many small metadata": '{"__metadata__":{' + repeated('"#":""', 2_000_000) + "}}",
    "a deep list": '{"t":' + "[" * 200_000 + "]" * 200_000 + "}",
    "more axes than any tensor has": entry("[1,1,1,1,1,1,1,1,1]"),
    "sides that are truths": entry("[true]"),
    "sides that are fractions": entry("[1.0]"),
    "a shape that is no list": entry('{"1":1}'),
    "offsets that are text": entry("[1]", '["0","4"]'),
    "a type that is a list": entry("[1]", dtype="[]"),
}


@pytest.fixture
def cheap() -> Any:
    """Bound what a check may take: it holds the interpreter, and other requests wait."""
    tracemalloc.start()
    started = time.process_time()
    yield
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 3  # with tracing; a fraction of it without
    assert peak < 150e6


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.usefixtures("cheap")
def test_a_hostile_header_is_refused_before_it_costs_anything(name: str) -> None:
    raw = HEADERS[name].encode()
    with pytest.raises(ModelInvalid) as refused:
        parse_header("x.safetensors", raw, 8 + len(raw) + 4)
    assert len(refused.value.message) < 500


@pytest.mark.usefixtures("cheap")
def test_as_many_tensors_as_any_model_has_are_read() -> None:
    """No real file comes near: 94 blocks of 128 experts make 36,000."""
    header = {
        f"model.layers.{place // 384}.mlp.experts.{place % 384}.up_proj.weight": {
            "dtype": "BF16",
            "shape": [1, 2],
            "data_offsets": [4 * place, 4 * place + 4],
        }
        for place in range(MAX_TENSORS // 4)
    }
    raw = json.dumps(header).encode()
    tensors = parse_header("x.safetensors", raw, 8 + len(raw) + 4 * len(header))
    assert len(tensors) == len(header)


CONFIGS = {
    "a width of thousands of digits": f'"hidden_size": {NINES}',
    "a setting of thousands of digits": f'"rope_theta": {NINES}',
    "a setting of thousands of digits, nested": f'"rope_scaling": {{"factor": -{NINES}}}',
    "a deep setting": '"id2label": ' + "[" * 900 + "]" * 900,
    "a deep setting of objects": '"id2label": ' + '{"a":' * 900 + "0" + "}" * 900,
    "a setting of many values": '"id2label": [' + ",".join(["{}"] * 1_000_000) + "]",
    "too many bytes": '"_name": "' + "x" * 6_000_000 + '"',
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.usefixtures("cheap")
def test_a_hostile_configuration_is_refused_before_it_costs_anything(name: str) -> None:
    with pytest.raises(ModelInvalid) as refused:
        parse_config(f"{{{LLAMA}, {CONFIGS[name]}}}".encode())
    assert len(refused.value.message) < 500


def index(weight_map: str, metadata: str = "{}") -> str:
    return f'{{"metadata":{metadata},"weight_map":{{{weight_map}}}}}'


ONE = '"a":"a.safetensors"'
INDICES = {
    "many tensors": index(repeated('"#":"a.safetensors"', 600_000)),
    "many files": index(repeated('"#":"#.safetensors"', 2_000)),
    "many values": index(ONE, "[" + ",".join(["[]"] * 5_000_000) + "]"),
    "too many bytes": index(ONE, '{"a":"' + "x" * 25_000_000 + '"}'),
}


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.usefixtures("cheap")
def test_a_hostile_index_is_refused_before_it_costs_anything(name: str) -> None:
    with pytest.raises(ModelInvalid) as refused:
        parse_index("index.json", INDICES[name].encode(), ["a.safetensors"])
    assert len(refused.value.message) < 500
