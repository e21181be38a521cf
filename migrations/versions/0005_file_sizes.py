"""Files say how much each split has, so that a job that asks for more is refused at submit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    document = sa.JSON().with_variant(JSONB(), "postgresql")
    op.add_column("files", sa.Column("splits", document, nullable=True))


def downgrade() -> None:
    op.drop_column("files", "splits")
