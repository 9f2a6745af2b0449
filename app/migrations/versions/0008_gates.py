"""Gates before promotion, answers of a candidate, feedback, reviews, and freezes of projects."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | None = None
depends_on: str | None = None

# Written out, not imported: a later change of the code must not change history.
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    # Added in place: a table that SQLite copies would take all that belongs to its rows with it.
    op.add_column("projects", sa.Column("gates", JSON, nullable=False, server_default="{}"))
    op.add_column(
        "projects", sa.Column("shadow", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("projects", sa.Column("frozen", JSON, nullable=True))
    op.add_column(
        "alias_moves",
        sa.Column("automatic", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("alias_moves", sa.Column("override", sa.Text(), nullable=True))
    _gate_runs()
    _shadow_answers()
    _feedback()


def _gate_runs() -> None:
    op.create_table(
        "gate_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("against_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", TIME, nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("progress", JSON, nullable=True),
        sa.Column("failure", JSON, nullable=True),
        sa.Column("result", JSON, nullable=True),
        sa.Column("requested_by", sa.Uuid(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("queued_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_gate_runs_state"),
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name=op.f("fk_gate_runs_version_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["against_id"],
            ["model_versions.id"],
            name=op.f("fk_gate_runs_against_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_gate_runs_project_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gate_runs")),
    )
    op.create_index("ix_gate_runs_project_id_id", "gate_runs", ["project_id", "id"], unique=False)
    op.create_index(
        "ix_gate_runs_state_lease_until", "gate_runs", ["state", "lease_until"], unique=False
    )
    op.create_index("ix_gate_runs_version_id_id", "gate_runs", ["version_id", "id"], unique=False)


def _shadow_answers() -> None:
    op.create_table(
        "shadow_answers",
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("probability", sa.Float(precision=53), nullable=False),
        sa.Column("probabilities", JSON, nullable=False),
        sa.Column("differs", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "decision IN ('ok', 'ng', 'undecidable')", name=op.f("ck_shadow_answers_decision")
        ),
        sa.ForeignKeyConstraint(
            ["prediction_id"],
            ["predictions.id"],
            name=op.f("fk_shadow_answers_prediction_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_shadow_answers_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name=op.f("fk_shadow_answers_version_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("prediction_id", name=op.f("pk_shadow_answers")),
    )
    op.create_index(
        "ix_shadow_answers_version_id_differs_prediction_id",
        "shadow_answers",
        ["version_id", "differs", "prediction_id"],
        unique=False,
    )
    op.create_index(
        "ix_shadow_answers_project_id_prediction_id",
        "shadow_answers",
        ["project_id", "prediction_id"],
        unique=False,
    )


def _feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("given_by", sa.Uuid(), nullable=True),
        sa.Column("given_at", TIME, nullable=False),
        sa.Column("replaced_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["prediction_id"],
            ["predictions.id"],
            name=op.f("fk_feedback_prediction_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_feedback_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
    )
    op.create_index(
        "uq_feedback_prediction_id",
        "feedback",
        ["prediction_id"],
        unique=True,
        sqlite_where=sa.text("replaced_at IS NULL"),
        postgresql_where=sa.text("replaced_at IS NULL"),
    )
    op.create_index("ix_feedback_prediction_id", "feedback", ["prediction_id"], unique=False)
    op.create_index("ix_feedback_project_id_id", "feedback", ["project_id", "id"], unique=False)
    op.create_table(
        "reviews",
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("action", sa.String(length=8), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("image_id", sa.Uuid(), nullable=True),
        sa.Column("reviewed_by", sa.Uuid(), nullable=True),
        sa.Column("reviewed_at", TIME, nullable=False),
        sa.CheckConstraint(
            "action IN ('keep', 'relabel', 'discard')", name=op.f("ck_reviews_action")
        ),
        sa.ForeignKeyConstraint(
            ["prediction_id"],
            ["predictions.id"],
            name=op.f("fk_reviews_prediction_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_reviews_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_reviews_image_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("prediction_id", name=op.f("pk_reviews")),
    )
    op.create_index(
        "ix_reviews_project_id_reviewed_at", "reviews", ["project_id", "reviewed_at"], unique=False
    )
    op.create_index("ix_reviews_image_id", "reviews", ["image_id"], unique=False)


def downgrade() -> None:
    for table in ("reviews", "feedback", "shadow_answers", "gate_runs"):
        op.drop_table(table)
    op.drop_column("alias_moves", "override")
    op.drop_column("alias_moves", "automatic")
    for column in ("frozen", "shadow", "gates"):
        op.drop_column("projects", column)
