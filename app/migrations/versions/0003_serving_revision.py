"""Gateways read only what changed: a counter, and for each project its last change by it."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    serving = op.create_table(
        "serving",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_serving_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_serving")),
    )
    op.bulk_insert(serving, [{"id": 1, "revision": 0, "deleted": 0}])
    # Added in place: a table that SQLite copies would take all that belongs to projects with it.
    op.add_column(
        "projects", sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.create_index("ix_projects_revision", "projects", ["revision"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_projects_revision", table_name="projects")
    op.drop_column("projects", "revision")
    op.drop_table("serving")
