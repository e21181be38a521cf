"""Jobs are filtered by indices: method and model are columns, labels a table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FILTERS = (
    ("status",),
    ("method",),
    ("model",),
    ("status", "method"),
    ("status", "model"),
    ("method", "model"),
    ("status", "method", "model"),
)
FILL = {
    "postgresql": "UPDATE jobs SET method = spec #>> '{prune,method,name}', model = spec #>> '{model,ref}'",
    "sqlite": "UPDATE jobs SET method = json_extract(spec, '$.prune.method.name'), "
    "model = json_extract(spec, '$.model.ref')",
}
FILL_LABELS = {
    "postgresql": "INSERT INTO job_labels (job_id, key, value, project, created_at) "
    "SELECT jobs.id, pair.key, pair.value, project, created_at FROM jobs, jsonb_each_text(labels) AS pair",
    "sqlite": "INSERT INTO job_labels (job_id, key, value, project, created_at) "
    "SELECT jobs.id, pair.key, pair.value, project, created_at FROM jobs, json_each(labels) AS pair",
}


def upgrade() -> None:
    for name in ("method", "model"):
        op.add_column("jobs", sa.Column(name, sa.Text(), nullable=True))
    op.create_table(
        "job_labels",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "key", name="pk_job_labels"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_labels_job_id"),
    )
    dialect = op.get_bind().dialect.name
    op.execute(FILL[dialect])
    op.execute(FILL_LABELS[dialect])
    for columns in FILTERS:
        name = f"ix_jobs_{'_'.join(columns)}"
        op.create_index(name, "jobs", ["project", *columns, "created_at", "id"])
    label = ["project", "key", "value", "created_at", "job_id"]
    op.create_index("ix_job_labels_value", "job_labels", label)


def downgrade() -> None:
    for columns in FILTERS:
        op.drop_index(f"ix_jobs_{'_'.join(columns)}", "jobs")
    op.drop_table("job_labels")
    for name in ("model", "method"):
        op.drop_column("jobs", name)
