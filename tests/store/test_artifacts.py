from __future__ import annotations

import pytest

from store import artifacts
from store.errors import ArtifactNotFound
from store.session import Database
from tests.store.helpers import submit


def test_rows_of_an_unfinished_job(database: Database):
    job_id = submit(database)
    with database.read() as session:
        assert artifacts.rows(session, job_id) == []
        with pytest.raises(ArtifactNotFound, match="manifest"):
            artifacts.row(session, job_id, "model.safetensors")
