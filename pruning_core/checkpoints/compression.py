"""What `config.json` says of how the weights are stored: plainly, or it is refused by the name of what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pruning_core.errors import UnsupportedModel

STATEMENTS = ("quantization_config", "compression_config", "sparsity_config")
"""Keys under which quantisers and sparsifiers say what they made."""
_PLAIN = ("dense", None)


def require_plain(config: Mapping[str, Any]) -> None:
    """Refuse weights that are not stored as they are multiplied.

    Tools for sparsity describe plain weights too, in the format `dense`.

    Raises:
        UnsupportedModel: they are quantised, or stored without their zeros.
    """
    for key in STATEMENTS:
        for statement in _statements(config.get(key)):
            _require(statement)


def _statements(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a statement, and the one on sparsity within it."""
    if not value:
        return
    if not isinstance(value, Mapping):
        raise UnsupportedModel(f"config.json describes the weights' storage as {value!r:.80}")
    yield value
    yield from _statements(value.get("sparsity_config"))


def _require(statement: Mapping[str, Any]) -> None:
    method, form = statement.get("quant_method", "compressed-tensors"), statement.get("format")
    if method != "compressed-tensors" or statement.get("config_groups"):
        scheme = ", ".join(str(word) for word in (method, form) if word)
        raise UnsupportedModel(
            f"The weights are quantised ({scheme:.80}); pruning needs the float checkpoint that they were made from."
        )
    if form not in _PLAIN:
        raise UnsupportedModel(
            f"The weights are stored compressed ({form!s:.80}); pruning needs them as they are multiplied.",
            suggestions=("save the model again without compression, in the format `dense`",),
        )
