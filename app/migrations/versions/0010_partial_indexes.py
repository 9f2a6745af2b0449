"""Predictions without a part or a station are not in the indexes that look for one."""

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | None = None
depends_on: str | None = None

# By name: columns, and which rows are in it.
INDEXES = {
    "ix_predictions_project_id_part_id": (["project_id", "part_id"], "part_id IS NOT NULL"),
    "ix_predictions_project_id_station_captured_at": (
        ["project_id", "station", "captured_at"],
        "station IS NOT NULL",
    ),
}


def upgrade() -> None:
    for name, (columns, rows) in INDEXES.items():
        op.drop_index(name, table_name="predictions")
        op.create_index(
            name,
            "predictions",
            columns,
            unique=False,
            sqlite_where=sa.text(rows),
            postgresql_where=sa.text(rows),
        )


def downgrade() -> None:
    for name, (columns, _) in INDEXES.items():
        op.drop_index(name, table_name="predictions")
        op.create_index(name, "predictions", columns, unique=False)
