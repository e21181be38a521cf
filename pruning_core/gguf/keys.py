"""The settings of one architecture in a GGUF header, each taken once: what nobody takes is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from pruning_core.errors import ModelInvalid, UnsupportedModel
from pruning_core.gguf.header import GgufHeader

SHOWN = 80
"""Characters of a value that a message shows."""


class Keys:
    """Settings by name, without the architecture before them.

    Args:
        file: Name of the file, for messages.
        header: Of that file.
        architecture: `general.architecture`.
    """

    def __init__(self, file: str, header: GgufHeader, architecture: str) -> None:
        self._file = file
        self._prefix = f"{architecture}."
        entries: dict[str, Any] = dict.fromkeys(header.lengths, "(an array)") | header.values
        self._all = {
            key.removeprefix(self._prefix): value
            for key, value in entries.items()
            if key.startswith(self._prefix)
        }
        self._left = set(self._all)

    def take(self, key: str, default: Any = None) -> Any:
        """Return a setting, one for all blocks, or the default."""
        self._left.discard(key)
        value = self._all.get(key, default)
        if not isinstance(value, tuple):
            return value
        if len(set(value)) != 1:
            self.refuse(key, "models are supported whose blocks are all alike")
        return value[0]

    def take_array(self, key: str) -> Any:
        """Return a setting that may differ between blocks; None where it is absent."""
        self._left.discard(key)
        return self._all.get(key)

    def need(self, key: str) -> Any:
        """Return a setting that must be there.

        Raises:
            ModelInvalid: it is not.
        """
        value = self.take(key)
        if value is None:
            raise ModelInvalid(f"{self._file} does not say {self._prefix}{key}")
        return value

    def drop(self, key: str) -> None:
        """Take a setting that decides no number."""
        self._left.discard(key)

    def check_rest(self, neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """Refuse the first setting that nobody took, unless it is known to do nothing at its value."""
        for key in sorted(self._left):
            if self.take(key) not in neutral.get(key, ()):
                self.refuse(key, "no setting of the checkpoint says so")

    def refuse(self, key: str, why: str) -> NoReturn:
        """Refuse the file for one of its settings."""
        shown = repr(self._all.get(key, "(absent)"))[:SHOWN]
        raise UnsupportedModel(
            f"{self._file} says {self._prefix}{key} = {shown}, which cannot be carried over: {why}",
            suggestions=("prune the safetensors checkpoint that the file was made from",),
        )
