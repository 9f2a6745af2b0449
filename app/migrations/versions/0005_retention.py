"""How long a project keeps predictions and their images, where the box's rules are not its own."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

# Written out, not imported: a later change of the code must not change history.
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    # Added in place: a table that SQLite copies would take all that belongs to projects with it.
    op.add_column("projects", sa.Column("retention", JSON, nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("projects", "retention")
