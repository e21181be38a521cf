"""Jobs and files are found by name and by the beginning of their id; jobs say what was expected of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("notes", DOCUMENT, nullable=False, server_default="[]"))
    op.add_column("jobs", sa.Column("estimate", DOCUMENT, nullable=True))
    for table in ("jobs", "files"):
        op.create_index(f"ix_{table}_id", table, ["project", "id"])
        op.create_index(f"ix_{table}_name", table, ["project", "name", "created_at", "id"])


def downgrade() -> None:
    for table in ("jobs", "files"):
        op.drop_index(f"ix_{table}_name", table)
        op.drop_index(f"ix_{table}_id", table)
    op.drop_column("jobs", "estimate")
    op.drop_column("jobs", "notes")
