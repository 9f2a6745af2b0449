"""What a project asks of decisions, and why each was what it was."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | None = None
depends_on: str | None = None

# Written out, not imported: a later change of the code must not change history.
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    # Added in place: a table that SQLite copies would take all that belongs to projects with it.
    op.add_column("projects", sa.Column("decisions", JSON, nullable=True))
    op.add_column("predictions", sa.Column("reason", sa.String(32), nullable=True))


def downgrade() -> None:
    op.drop_column("predictions", "reason")
    op.drop_column("projects", "decisions")
