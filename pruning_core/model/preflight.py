"""What stock transformers makes of the files beside the weights, or refuses of them, found before any work is done."""

from __future__ import annotations

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, GenerationConfig

from pruning_core.checkpoints.facts import CheckpointFacts
from pruning_core.system.user_faults import blamed_on


def check(folder: Path, facts: CheckpointFacts) -> None:
    """Refuse settings with which no result of this model could be opened.

    Raises:
        ModelInvalid: which file, and why.
    """
    configuration(facts)
    # A file that is no JSON counts as absent
    with blamed_on("stock transformers refuses generation_config.json"), suppress(OSError):
        GenerationConfig.from_pretrained(folder)


def configuration(facts: CheckpointFacts) -> Any:
    """Return the settings of a model as stock transformers reads them.

    Raises:
        ModelInvalid: it refuses them.
    """
    # transformers writes into what it is given
    settings = copy.deepcopy(facts.config) | {"_name_or_path": ""}
    with blamed_on("transformers refuses config.json"):
        return CONFIG_MAPPING[facts.model_type].from_dict(settings)
