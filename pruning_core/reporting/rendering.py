"""The templates of the page and of the model card, with escaping on."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined


def rendered(template: str, values: Mapping[str, object]) -> str:
    """Return a template of this package, filled in; what it was not given is an error."""
    environment = Environment(
        loader=PackageLoader("pruning_core.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
