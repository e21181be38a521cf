"""The short form of a report that the job itself shows."""

from __future__ import annotations

from tests.pruning_core import reports
from worker import publish


def test_result_of_a_smaller_model() -> None:
    result = publish.result(reports.refitted())
    assert result["params_before"] == 134_515_008
    assert result["params_after"] == result["params_nonzero"] == 107_419_968
    assert round(result["achieved_sparsity"], 3) == 0.201
    assert result["recovery"] == {"loss_before": 3.4321, "loss_after": 3.0123, "steps": 120}


def test_result_of_masks_has_all_parameters() -> None:
    result = publish.result(reports.report())
    assert result["params_after"] == result["params_before"]
    assert "recovery" not in result
