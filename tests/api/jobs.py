"""Driving jobs through their life without a pruner: the store's own functions, real files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from api.app import create_app
from pruning_core.spec.progress import Progress
from pruning_core.spec.report_parts.removal import BlockReport
from store import keys, leases
from store.artifacts import ArtifactRow, attempt_prefix, report_page_key
from store.backends import artifacts_of
from store.presets import NewPreset
from store.session import Database
from store.settings import Settings

BODY: dict[str, Any] = {
    "model": "hf://org/model@main",
    "prune": {"method": "wanda", "sparsity": 0.5, "calibration": ["python_docs"]},
}
FILES = {
    "model.safetensors": bytes(range(256)) * 40_000,
    "config.json": b'{"model_type": "llama"}',
    "empty.txt": b"",
    "sub folder/tokenizer ä.json": b"{}" * 50_000,
}
REPORT: dict[str, Any] = {
    "schema_version": 1,
    "bytes_before": 100,
    "bytes_after": 100,
    "parameters": 1000,
    "parameters_nonzero": 500,
    "perplexity": [
        {"task": "python_docs", "tokens": 512, "dense": 10.5, "pruned": 12.25},
    ],
    "warnings": ["zeros alone make nothing smaller or faster"],
}
RESULT = {"achieved_sparsity": 0.5, "warnings": []}

COEFFICIENTS: dict[str, Any] = {
    "alpha": 0.7321,
    "beta": 0.3,
    "gamma": 0.9679,
    "kernel": 5,
    "neighbour": "ratio",
}
PRESET = NewPreset("mine", {**COEFFICIENTS, "found": "pho on hf://org/model, sparsity 0.5"})
NAMING = {"prune": {"method": {"name": "crepe", "preset": "mine"}, "sparsity": 0.5}}
SAVING = {
    "prune": {
        "method": {"name": "crepe", "search": {"name": "pho", "save_as": "mine"}},
        "sparsity": 0.5,
    }
}


@dataclass(frozen=True)
class Service:
    """One database and folder, and what a worker would do with them."""

    settings: Settings
    database: Database
    secret: str

    @classmethod
    def over(cls, database_url: str, folder: Path, **settings: Any) -> Service:
        made = Settings(data_dir=folder, database_url=database_url, **settings)
        database = Database(database_url)
        with database.write() as session:
            _, secret = keys.create(session, project="prj_a", name="test")
        return cls(made, database, secret)

    def app(self) -> FastAPI:
        return create_app(self.settings)

    def key(self, *, project: str = "prj_a", scopes: tuple[str, ...] = keys.SCOPES) -> str:
        with self.database.write() as session:
            _, secret = keys.create(session, project=project, name="more", scopes=scopes)
        return secret

    def claim(self) -> leases.Claim:
        with self.database.write() as session:
            claim = leases.claim(session, owner="test", lease_seconds=600)
        assert claim is not None
        return claim

    def progress(self, claim: leases.Claim, step: int, *, block: bool = True) -> None:
        made = BlockReport(
            block=step, seconds=1, file=f"block-{step}", sha256="0" * 64, bytes=1, matrices=()
        )
        progress = Progress(
            phase="pruning",
            step=step,
            total_steps=4,
            percent=25.0 * step,
            seconds_remaining=10.0 - step,
            block=made if block else None,
        )
        with self.database.write() as session:
            leases.record_progress(session, claim.job_id, claim.epoch, progress)

    def succeed(
        self,
        claim: leases.Claim,
        files: dict[str, bytes] = FILES,
        *,
        preset: NewPreset | None = None,
        page: str | None = None,
    ) -> None:
        store = artifacts_of(self.settings)
        rows = []
        source = self.settings.data_dir / "source"
        if page is not None:
            source.write_text(page)
            store.put(source, report_page_key(attempt_prefix(claim.job_id, claim.epoch)))
            source.unlink()
        for path, content in files.items():
            source.write_bytes(content)
            key = f"jobs/{claim.job_id}/e{claim.epoch}/{path}"
            size, sha256 = store.put(source, key)
            source.unlink()
            assert sha256 == hashlib.sha256(content).hexdigest()
            media_type = "application/json" if path.endswith("json") else "application/octet-stream"
            rows.append(ArtifactRow(path, key, sha256, size, media_type))
        with self.database.write() as session:
            leases.finish(
                session,
                claim.job_id,
                claim.epoch,
                report=REPORT,
                result=RESULT,
                artifacts=rows,
                preset=preset,
            )

    def fail(self, claim: leases.Claim) -> None:
        error = {
            "code": "MODEL_NOT_FINITE",
            "class": "user",
            "retryable": False,
            "detail": "a weight is NaN",
            "suggestions": ["use another checkpoint"],
        }
        with self.database.write() as session:
            leases.fail(session, claim.job_id, claim.epoch, error)
