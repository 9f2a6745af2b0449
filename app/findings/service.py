"""What the data doctor found in a project's images: asked for, recorded, shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.clock import utc_now
from app.core.database import database_now
from app.core.errors import Conflict
from app.core.jobs import EXAMINATIONS, Lease
from app.core.queue import TaskQueue, send_examination
from app.core.storage import Storage
from app.core.tables import Examination, FoundFinding, Project, Tuning
from app.findings import repository
from app.images import repository as images
from app.projects import service as project_service
from app.snapshots.service import labelled_images
from models.classes import ClassSpec
from models.dataset import LabelledImage, snapshot_digest
from models.findings.finding import Finding, Kind, Severity


@dataclass(frozen=True)
class ImageSet:
    """A project's images as they are, whether or not a tuning would take them."""

    digest: str
    classes: list[ClassSpec]
    images: list[LabelledImage]


@dataclass(frozen=True)
class FoundView:
    """What stands of a project.

    Attributes:
        examination: whose findings these are; None where there was none yet.
        asked: the examination that was asked for last; None where none was.
        out_of_date: whether images or labels changed since.
        rows: the findings that were asked for.
        counts: of all findings, by severity.
        ids: of the images that they name, by sha256.
    """

    examination: Examination | None
    asked: Examination | None
    out_of_date: bool
    rows: Sequence[FoundFinding]
    counts: dict[str, int]
    ids: dict[str, UUID]


def image_set(session: Session, project: Project, storage: Storage) -> ImageSet:
    """Return the project's classes and images as they are; nothing of the bytes is read."""
    specs, _, labelled = labelled_images(session, project, storage)
    return ImageSet(snapshot_digest(specs, labelled), specs, labelled)


def start_examination(
    session: Session,
    principal: Principal,
    project_id: UUID,
    *,
    backbone: str,
    queue: TaskQueue,
) -> Examination:
    """Queue a look at the project's images; one that is under way already is enough.

    Raises:
        NotFound: no such project, or not for this key.
        Conflict: the project has no images.
    """
    project = project_service.lock_project(session, principal, project_id)
    asked = repository.latest_asked(session, project.id)
    if asked is not None and asked.state == "queued":
        return asked
    if not images.all_of(session, project.id):
        raise Conflict(
            f"The project {project.name!r} has no images to look at.",
            fix="Upload images first.",
            field="project",
        )
    examination = Examination(
        project_id=project.id,
        view=project_service.view_of(project).model_dump(mode="json"),
        backbone=backbone,
        requested_by=principal.key_id,
        queued_at=database_now(),
    )
    repository.add(session, examination)
    after = audit.columns(examination, "view", "backbone")
    audit.record(session, "examination.start", examination.id, project=project.id, after=after)
    send_examination(session, queue, examination.id)
    return examination


def complete(session: Session, lease: Lease, looked_at: ImageSet, found: Sequence[Finding]) -> bool:
    """Record what an examination found; False where the lease is gone."""
    row = EXAMINATIONS.held(session, lease)
    if row is None or not EXAMINATIONS.complete(session, lease):
        return False
    session.refresh(row)
    row.digest, row.image_count = looked_at.digest, len(looked_at.images)
    _keep(session, row, found)
    return True


def record_for_tuning(
    session: Session, tuning: Tuning, digest: str, image_count: int, found: Sequence[Finding]
) -> None:
    """Record what was found before a tuning, of its snapshot."""
    examination = Examination(
        project_id=tuning.project_id,
        tuning_id=tuning.id,
        digest=digest,
        image_count=image_count,
        view=tuning.view,
        backbone=tuning.backbone,
        state="succeeded",
        attempt=1,
        started_at=utc_now(),
        finished_at=database_now(),
    )
    repository.add(session, examination)
    _keep(session, examination, found)


def _keep(session: Session, examination: Examination, found: Sequence[Finding]) -> None:
    repository.drop_older(session, examination)
    repository.add_findings(session, examination.id, found)


def list_findings(
    session: Session,
    principal: Principal,
    project_id: UUID,
    storage: Storage,
    *,
    kind: Kind | None,
    severity: Severity | None,
    after: UUID | None,
    limit: int,
) -> FoundView:
    """Return the findings of the last examination, the serious first.

    Raises:
        NotFound: no such project, or not for this key.
    """
    project = project_service.get_project(session, principal, project_id)
    examination = repository.last(session, project.id)
    asked = repository.latest_asked(session, project.id)
    if examination is None:
        return FoundView(None, asked, True, [], {}, {})
    rows = repository.page(
        session, examination.id, kind=kind, severity=severity, after=after, limit=limit
    )
    named = {ref["sha256"] for row in rows for ref in row.content["images"]}
    return FoundView(
        examination=examination,
        asked=asked,
        out_of_date=image_set(session, project, storage).digest != examination.digest,
        rows=rows,
        counts=dict(repository.counts(session, examination.id)),
        ids=repository.image_ids(session, project.id, named),
    )


def forget_image(session: Session, project_id: UUID, sha256: str) -> None:
    """Delete what was found of an image that is deleted."""
    repository.delete_naming(session, project_id, sha256)
