"""The one public function of the library."""

from pruning_core.pipeline.phases import prune

__all__ = ["prune"]
