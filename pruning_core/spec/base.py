"""What every public class of the specification shares: frozen, closed, documented, digestible."""

from __future__ import annotations

import hashlib
import json

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable; unknown fields, NaN and infinity are refused; attribute docstrings become field descriptions."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def digest(model: BaseModel) -> str:
    """Return `sha256:<hex>` of the canonical JSON: defaults filled in, keys sorted."""
    canonical = json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
