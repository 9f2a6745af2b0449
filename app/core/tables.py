"""Every table of the service, as SQLAlchemy models. Their history is in `app/migrations`."""

from datetime import datetime
from typing import Any, ClassVar, Literal
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.clock import utc_now
from app.core.ids import new_id
from app.core.types import Json, UtcDateTime
from models.classes import Role

Split = Literal["train", "holdout"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
KeyRole = Literal["viewer", "operator", "engineer", "admin"]
KeepImages = Literal["none", "undecidable", "all"]
MoveKind = Literal["promote", "rollback"]
Decision = Literal["ok", "ng", "undecidable"]
ReviewAction = Literal["keep", "relabel", "discard"]

SHA256 = String(64)


def one_of(column: str, *values: str) -> CheckConstraint:
    """Return the constraint that `column` holds one of `values`."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Table(DeclarativeBase):
    """Base of all tables. Ids are UUIDv7: they sort by the time the row was made."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        UUID: Uuid(),
        datetime: UtcDateTime(),
        dict[str, Any]: Json,
        list[Any]: Json,
        str: Text(),
    }


class Project(Table):
    """One inspection task.

    `name_key` is the name after normalisation, under which duplicates are found. `view` is a
    `models.imaging.View` as JSON. `revision` is that of the last change of what gateways serve.
    `retention` has the rules that are not the box's: see `app.predictions.retention`; `gates` those
    of promotion, likewise: see `app.projects.gate_policy`. `shadow`: the candidate answers beside
    production. `frozen` says who stopped all changes, when and why: see `app.projects.freeze`.
    `decisions` is a `models.trust.policy.DecisionPolicy` as JSON, None the default one.
    """

    __tablename__ = "projects"
    __table_args__ = (
        one_of("keep_images", "none", "undecidable", "all"),
        Index("ix_projects_revision", "revision"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    view: Mapped[dict[str, Any]]
    keep_images: Mapped[KeepImages] = mapped_column(String(16), default="undecidable")
    revision: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    retention: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    gates: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    shadow: Mapped[bool] = mapped_column(default=False, server_default=false())
    frozen: Mapped[dict[str, Any] | None]
    decisions: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Serving(Table):
    """One row: how often what gateways serve has changed, and when last something was deleted.

    Every transaction that changes it counts `revision` up, which holds back the next one until it
    is committed: whoever sees a number has all changes up to it. See `app.projects.repository`.

    Attributes:
        revision: of the last change.
        deleted: the revision that last deleted a project or a version.
    """

    __tablename__ = "serving"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger)
    deleted: Mapped[int] = mapped_column(BigInteger)


class ProjectClass(Table):
    """A class of a project; `position` is its place in the order, from 0."""

    __tablename__ = "classes"
    __table_args__ = (
        UniqueConstraint("project_id", "name_key"),
        Index("ix_classes_project_id_position", "project_id", "position"),
        one_of("role", "ok", "ng", "other"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    position: Mapped[int]
    name: Mapped[str]
    name_key: Mapped[str]
    prompt_name: Mapped[str]
    role: Mapped[Role] = mapped_column(String(8))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Image(Table):
    """An uploaded image; with `deleted_at` a tombstone, gone for people, kept for a snapshot.

    `pixels` is a `models.findings.traits.PixelTraits` as JSON; None where it came before there were
    any.
    """

    __tablename__ = "images"
    __table_args__ = (
        # Bytes are in a project once; a tombstone does not stand in the way of a new upload.
        Index(
            "uq_images_project_id_sha256",
            "project_id",
            "sha256",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("ix_images_project_id_id", "project_id", "id"),
        Index("ix_images_class_id", "class_id"),
        Index("ix_images_sha256", "sha256"),
        one_of("split", "train", "holdout"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    class_id: Mapped[UUID] = mapped_column(ForeignKey("classes.id"))
    sha256: Mapped[str] = mapped_column(SHA256)
    file_name: Mapped[str]
    format: Mapped[str] = mapped_column(String(16))
    width: Mapped[int]
    height: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    split: Mapped[Split] = mapped_column(String(8), default="train")
    group: Mapped[str]
    pixels: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]


class Snapshot(Table):
    """An immutable list of (image, class); `classes` is the ordered list of `ClassSpec` as JSON."""

    __tablename__ = "snapshots"
    __table_args__ = (UniqueConstraint("project_id", "digest"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    digest: Mapped[str] = mapped_column(String(80))
    classes: Mapped[list[Any]]
    image_count: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class SnapshotImage(Table):
    """One entry of a snapshot, complete in itself; `label` is an index into its classes."""

    __tablename__ = "snapshot_images"
    __table_args__ = (
        Index("ix_snapshot_images_image_id", "image_id"),
        Index("ix_snapshot_images_sha256", "sha256"),
        one_of("split", "train", "holdout"),
    )

    snapshot_id: Mapped[UUID] = mapped_column(
        ForeignKey("snapshots.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    image_id: Mapped[UUID] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"))
    sha256: Mapped[str] = mapped_column(SHA256)
    label: Mapped[int]
    split: Mapped[Split] = mapped_column(String(8))
    group: Mapped[str]


_JOB_STATE = ("state", "queued", "running", "succeeded", "failed", "cancelled")


class Job(Table):
    """What every job of the workers has. The row is the truth, a message only a wake-up.

    Attributes:
        attempt: deliveries that were claimed; the fence, see `app.core.jobs`.
        losses: attempts, one after the other, that came to nothing through no one's wish.
        lease_owner, lease_until: who works on it, and until when by the database's clock.
        cancel_requested: someone asked for it to stop; the worker looks.
        progress: how far it is, as JSON.
        failure: the reason, in a sentence that a person understands, and what to do.
    """

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    state: Mapped[JobState] = mapped_column(String(16), default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[dict[str, Any] | None]
    failure: Mapped[dict[str, Any] | None]
    requested_by: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    queued_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Tuning(Job):
    """Snapshot + recipe + seed, which lead to a version.

    Attributes:
        recipe: where it is searched for, what all others are compared with until one is taken.
        checkpoint: sha256 of the last checkpoint in storage.
        progress: `models.tuning.TuningProgress` as JSON.
        findings: what the data doctor said of the snapshot, a list of
            `models.findings.finding.FindingSummary` as JSON; None where it has not looked.
        search: `app.searches.states.Search` as JSON; None where the recipe was given.
    """

    __tablename__ = "tunings"
    __table_args__ = (
        one_of(*_JOB_STATE),
        Index("ix_tunings_project_id_id", "project_id", "id"),
        Index("ix_tunings_state_lease_until", "state", "lease_until"),
    )

    snapshot_id: Mapped[UUID] = mapped_column(ForeignKey("snapshots.id"))
    recipe: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    view: Mapped[dict[str, Any]]
    backbone: Mapped[str]
    checkpoint: Mapped[str | None] = mapped_column(SHA256)
    findings: Mapped[list[Any] | None]
    search: Mapped[dict[str, Any] | None]


class SearchTrial(Job):
    """One recipe that the search of a tuning tries.

    Attributes:
        number: 0 for `auto`, then in the order in which they were drawn.
        params: the hyperparameters that are searched, by name.
        folds: macro accuracy so far after each fold, as the last attempt found it.
        result: what the trial came to, `models.search.result.TrialRecord` has the same names.
        hits: a 1 for each training image predicted right, a 0 for any other; read when asked for.
    """

    __tablename__ = "search_trials"
    __table_args__ = (
        one_of(*_JOB_STATE),
        UniqueConstraint("tuning_id", "number"),
        Index("ix_search_trials_project_id", "project_id"),
        Index("ix_search_trials_state_lease_until", "state", "lease_until"),
    )

    tuning_id: Mapped[UUID] = mapped_column(ForeignKey("tunings.id", ondelete="CASCADE"))
    number: Mapped[int]
    params: Mapped[dict[str, Any]]
    folds: Mapped[list[Any]] = mapped_column(default=list)
    result: Mapped[dict[str, Any] | None]
    hits: Mapped[str | None] = mapped_column(deferred=True)


class ModelVersion(Table):
    """An immutable tuned artifact: `digest` is its own, `artifact_sha256` that of its file."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("project_id", "number"), UniqueConstraint("tuning_id"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    number: Mapped[int]
    tuning_id: Mapped[UUID] = mapped_column(ForeignKey("tunings.id", ondelete="CASCADE"))
    digest: Mapped[str] = mapped_column(String(80))
    artifact_sha256: Mapped[str] = mapped_column(SHA256)
    report_sha256: Mapped[str | None] = mapped_column(SHA256)
    backbone: Mapped[str]
    backbone_digest: Mapped[str] = mapped_column(String(80))
    classes: Mapped[list[Any]]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Alias(Table):
    """A movable name for a version: `production`, `candidate`."""

    __tablename__ = "aliases"

    project_id: Mapped[UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"))
    moved_at: Mapped[datetime] = mapped_column(default=utc_now)


class AliasMove(Table):
    """One recorded move of an alias; rows are only ever added.

    Attributes:
        automatic: a tuning's success made it, and no person.
        override: why an admin let a version pass that its gates had not.
    """

    __tablename__ = "alias_moves"
    __table_args__ = (
        Index("ix_alias_moves_project_id_alias_id", "project_id", "alias", "id"),
        one_of("kind", "promote", "rollback"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    alias: Mapped[str] = mapped_column(String(64))
    kind: Mapped[MoveKind] = mapped_column(String(16))
    from_version_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE")
    )
    to_version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"))
    moved_by: Mapped[UUID | None]
    reason: Mapped[str | None]
    automatic: Mapped[bool] = mapped_column(default=False, server_default=false())
    override: Mapped[str | None]
    moved_at: Mapped[datetime] = mapped_column(default=utc_now)


class PredictionRecord(Table):
    """What the line was told. The id is made in the gateway; the row is written within a second."""

    __tablename__ = "predictions"
    __table_args__ = (
        one_of("decision", "ok", "ng", "undecidable"),
        Index("ix_predictions_project_id_id", "project_id", "id"),
        # Each index is written to with every prediction that is in it.
        Index(
            "ix_predictions_project_id_part_id",
            "project_id",
            "part_id",
            sqlite_where=text("part_id IS NOT NULL"),
            postgresql_where=text("part_id IS NOT NULL"),
        ),
        Index(
            "ix_predictions_project_id_station_captured_at",
            "project_id",
            "station",
            "captured_at",
            sqlite_where=text("station IS NOT NULL"),
            postgresql_where=text("station IS NOT NULL"),
        ),
        # What a version's deletion looks for.
        Index("ix_predictions_model_version_id", "model_version_id"),
        # What a project's quota of kept images is counted by.
        Index(
            "ix_predictions_kept_images",
            "project_id",
            "id",
            sqlite_where=text("image_sha256 IS NOT NULL"),
            postgresql_where=text("image_sha256 IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    model_version_id: Mapped[UUID] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE")
    )
    model_number: Mapped[int]
    model_digest: Mapped[str] = mapped_column(String(80))
    image_id: Mapped[str | None]
    part_id: Mapped[str | None]
    station: Mapped[str | None]
    captured_at: Mapped[datetime | None]
    decision: Mapped[Decision] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    label: Mapped[str]
    probability: Mapped[float] = mapped_column(Float(53))
    probabilities: Mapped[list[Any]]
    prediction_set: Mapped[list[Any]]
    timings_ms: Mapped[dict[str, Any]]
    image_sha256: Mapped[str | None] = mapped_column(SHA256)
    image_bytes: Mapped[int | None] = mapped_column(BigInteger)
    requested_by: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Batch(Job):
    """Many images that are decided on in the background, by one version.

    Attributes:
        model_version_id: frozen when the batch was asked for.
        top_k: so many classes are listed; None for all.
        image_count: how many there are.
        progress: `app.batches.states.Progress` as JSON.
    """

    __tablename__ = "batches"
    __table_args__ = (
        one_of(*_JOB_STATE),
        Index("ix_batches_project_id_id", "project_id", "id"),
        Index("ix_batches_state_lease_until", "state", "lease_until"),
        # What a version's deletion looks for.
        Index("ix_batches_model_version_id", "model_version_id"),
    )

    model_version_id: Mapped[UUID] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE")
    )
    top_k: Mapped[int | None]
    image_count: Mapped[int]


class BatchImage(Table):
    """One image of a batch; `position` is its place in what was sent, from 0.

    Attributes:
        sha256: its bytes; None where they could not be had.
        problem: then the reason, and what to do.
    """

    __tablename__ = "batch_images"
    __table_args__ = (Index("ix_batch_images_sha256", "sha256"),)

    batch_id: Mapped[UUID] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str | None] = mapped_column(SHA256)
    problem: Mapped[dict[str, Any] | None]


class BatchPart(Table):
    """The results of `count` images from `position` on: a blob of NDJSON, written once."""

    __tablename__ = "batch_parts"

    batch_id: Mapped[UUID] = mapped_column(
        ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    count: Mapped[int]
    sha256: Mapped[str] = mapped_column(SHA256)


class GateRun(Job):
    """A version measured against what it is to replace, on images that neither was tuned on.

    Attributes:
        version_id: to be promoted.
        against_id: in production when the run was asked for; None where nothing was.
        progress: `models.tuning.TuningProgress` as JSON, as a tuning's.
        result: `models.gates.GateResult` as JSON, where it succeeded.
    """

    __tablename__ = "gate_runs"
    __table_args__ = (
        one_of(*_JOB_STATE),
        Index("ix_gate_runs_project_id_id", "project_id", "id"),
        Index("ix_gate_runs_state_lease_until", "state", "lease_until"),
        Index("ix_gate_runs_version_id_id", "version_id", "id"),
    )

    version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"))
    against_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE")
    )
    result: Mapped[dict[str, Any] | None]


class ShadowAnswer(Table):
    """What the candidate said of an image that production decided on; written with that record.

    Attributes:
        version_id: the candidate.
        differs: in its decision, or in its label.
    """

    __tablename__ = "shadow_answers"
    __table_args__ = (
        one_of("decision", "ok", "ng", "undecidable"),
        Index(
            "ix_shadow_answers_version_id_differs_prediction_id",
            "version_id",
            "differs",
            "prediction_id",
        ),
        Index("ix_shadow_answers_project_id_prediction_id", "project_id", "prediction_id"),
    )

    prediction_id: Mapped[UUID] = mapped_column(
        ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True
    )
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"))
    decision: Mapped[Decision] = mapped_column(String(16))
    label: Mapped[str]
    probability: Mapped[float] = mapped_column(Float(53))
    probabilities: Mapped[list[Any]]
    differs: Mapped[bool]


class Feedback(Table):
    """The true label of a predicted image, as somebody said; another one replaces it.

    Attributes:
        label: the class's name at that time.
        replaced_at: when somebody said another one; what has none is the one that counts.
    """

    __tablename__ = "feedback"
    __table_args__ = (
        Index(
            "uq_feedback_prediction_id",
            "prediction_id",
            unique=True,
            sqlite_where=text("replaced_at IS NULL"),
            postgresql_where=text("replaced_at IS NULL"),
        ),
        # What goes with a prediction that has expired.
        Index("ix_feedback_prediction_id", "prediction_id"),
        Index("ix_feedback_project_id_id", "project_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    prediction_id: Mapped[UUID] = mapped_column(ForeignKey("predictions.id", ondelete="CASCADE"))
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    label: Mapped[str]
    note: Mapped[str | None]
    given_by: Mapped[UUID | None]
    given_at: Mapped[datetime] = mapped_column(default=utc_now)
    replaced_at: Mapped[datetime | None]


class Review(Table):
    """What became of a predicted image that waited for a person; it leaves the queue.

    Attributes:
        label: under which it was added to the project's images.
        image_id: that image; None where it was discarded, or deleted since.
    """

    __tablename__ = "reviews"
    __table_args__ = (
        one_of("action", "keep", "relabel", "discard"),
        Index("ix_reviews_project_id_reviewed_at", "project_id", "reviewed_at"),
        Index("ix_reviews_image_id", "image_id"),
    )

    prediction_id: Mapped[UUID] = mapped_column(
        ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True
    )
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    action: Mapped[ReviewAction] = mapped_column(String(8))
    label: Mapped[str | None]
    image_id: Mapped[UUID | None] = mapped_column(ForeignKey("images.id", ondelete="SET NULL"))
    reviewed_by: Mapped[UUID | None]
    reviewed_at: Mapped[datetime] = mapped_column(default=utc_now)


class Examination(Job):
    """The data doctor's look at a project's images as they are when it begins.

    A tuning's own look is recorded as one that has succeeded. Only the last that did is kept.

    Attributes:
        tuning_id: the tuning that it was made for; None where it was asked for by itself.
        digest: of the images and their labels, see `models.dataset.snapshot_digest`; None before
            the end.
        image_count: how many images it looked at.
        view, backbone: how the images are looked at.
    """

    __tablename__ = "examinations"
    __table_args__ = (
        one_of(*_JOB_STATE),
        Index("ix_examinations_project_id_id", "project_id", "id"),
        Index("ix_examinations_state_lease_until", "state", "lease_until"),
        # What a tuning's deletion looks for.
        Index("ix_examinations_tuning_id", "tuning_id"),
    )

    tuning_id: Mapped[UUID | None] = mapped_column(ForeignKey("tunings.id", ondelete="SET NULL"))
    digest: Mapped[str | None] = mapped_column(String(80))
    image_count: Mapped[int | None]
    view: Mapped[dict[str, Any]]
    backbone: Mapped[str]


class FoundFinding(Table):
    """One finding of an examination; `content` is a `models.findings.finding.Finding` as JSON.

    The ids are in the order in which findings are to be read.
    """

    __tablename__ = "findings"
    __table_args__ = (Index("ix_findings_examination_id_id", "examination_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    examination_id: Mapped[UUID] = mapped_column(ForeignKey("examinations.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(32))
    severity: Mapped[str] = mapped_column(String(16))
    content: Mapped[dict[str, Any]]


class AuditEntry(Table):
    """One change, written in its transaction; rows are only ever added, triggers see to that.

    No foreign keys: an entry outlives what it speaks of. See `app.core.audit`.

    Attributes:
        sequence: 1, 2, 3 … without gaps.
        at: by the database's clock.
        actor_id, actor: the API key's id and its name at that time.
        action: such as `project.create`.
        kind, object_id, project_id: what was changed.
        before, after: canonical JSON, as text: databases change numbers within their own JSON.
        mac: HMAC-SHA256 of all this and the `mac` of the entry before.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_project_id_sequence", "project_id", "sequence"),
        Index("ix_audit_entries_at", "at"),
    )

    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    actor_id: Mapped[UUID | None]
    actor: Mapped[str]
    action: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str | None]
    project_id: Mapped[UUID | None]
    before: Mapped[str | None]
    after: Mapped[str | None]
    request_id: Mapped[str | None]
    mac: Mapped[str] = mapped_column(SHA256)


class AuditHead(Table):
    """One row: the end of the chain of audit entries; whoever adds to it holds this row.

    Attributes:
        sequence, mac: of the last entry; 0 and zeros before the first.
        key_id: tells keys apart, so that no two of them ever seal one chain.
    """

    __tablename__ = "audit_head"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger)
    mac: Mapped[str] = mapped_column(SHA256)
    key_id: Mapped[str | None] = mapped_column(String(16))


class ApiKey(Table):
    """An API key: its SHA-256, the prefix people know it by; without a project it sees all."""

    __tablename__ = "api_keys"
    __table_args__ = (one_of("role", "viewer", "operator", "engineer", "admin"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(SHA256, unique=True)
    role: Mapped[KeyRole] = mapped_column(String(16))
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
