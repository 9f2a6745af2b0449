"""SQL of projects and their classes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.errors import Duplicate
from app.core.jobs import FINAL, KINDS
from app.core.tables import (
    Alias,
    Image,
    ModelVersion,
    Project,
    ProjectClass,
    Serving,
    Split,
    Tuning,
)
from models.classes import Role

PRODUCTION = "production"


class ImageCount(NamedTuple):
    """How many images of a class there are in a split."""

    class_id: UUID
    split: Split
    images: int


def flush(session: Session, taken: Duplicate) -> None:
    """Write what changed; raise `taken` where a unique index refuses it."""
    try:
        session.flush()
    except IntegrityError as error:
        raise taken from error


def get(session: Session, project_id: UUID) -> Project | None:
    """Return the project."""
    return session.get(Project, project_id)


def lock(session: Session, project_id: UUID) -> Project | None:
    """Return the project and hold back other writers of it until the transaction ends.

    On SQLite the transaction itself holds back all writers.
    """
    return session.get(Project, project_id, with_for_update=True)


def note_change(session: Session, project_id: UUID) -> None:
    """Let gateways read the project again: what they serve of it is another.

    The last statement of its transaction, since it holds back all others that change something.
    """
    counted = update(Serving).values(revision=Serving.revision + 1).returning(Serving.revision)
    session.execute(
        update(Project)
        .where(Project.id == project_id)
        .values(revision=session.execute(counted).scalar_one())
        .execution_options(synchronize_session=False)
    )


def note_deletion(session: Session) -> None:
    """Let gateways look what is gone, a project or a version; see `note_change`."""
    counted = Serving.revision + 1
    session.execute(update(Serving).values(revision=counted, deleted=counted))


def page(
    session: Session, *, only: UUID | None, name_key: str | None, after: UUID | None, limit: int
) -> Sequence[Project]:
    """Return projects in the order they were made."""
    query = select(Project).order_by(Project.id).limit(limit)
    if only is not None:
        query = query.where(Project.id == only)
    if name_key is not None:
        query = query.where(Project.name_key == name_key)
    if after is not None:
        query = query.where(Project.id > after)
    return session.scalars(query).all()


def remove(session: Session, project_id: UUID) -> None:
    """Delete the project and everything that belongs to it."""
    session.execute(delete(Project).where(Project.id == project_id))


def classes(session: Session, project_ids: Iterable[UUID]) -> Sequence[ProjectClass]:
    """Return the classes of the projects, each project's in its order."""
    return session.scalars(
        select(ProjectClass)
        .where(ProjectClass.project_id.in_(list(project_ids)))
        .order_by(ProjectClass.project_id, ProjectClass.position, ProjectClass.id)
    ).all()


def image_counts(session: Session, project_ids: Iterable[UUID]) -> list[ImageCount]:
    """Count the images of the projects by class and split, without tombstones."""
    rows = session.execute(
        select(Image.class_id, Image.split, func.count())
        .where(Image.project_id.in_(list(project_ids)), Image.deleted_at.is_(None))
        .group_by(Image.class_id, Image.split)
    )
    return [ImageCount(*row) for row in rows]


def training_groups(session: Session, project_id: UUID) -> dict[Role, int]:
    """Count the groups of training images of each role that has any, without tombstones."""
    rows = session.execute(
        select(ProjectClass.role, func.count(Image.group.distinct()))
        .join(ProjectClass, ProjectClass.id == Image.class_id)
        .where(Image.project_id == project_id, Image.split == "train", Image.deleted_at.is_(None))
        .group_by(ProjectClass.role)
    )
    return {row[0]: row[1] for row in rows}


def production(session: Session, project_id: UUID) -> ModelVersion | None:
    """Return the version in production."""
    query = (
        select(ModelVersion)
        .join(Alias, Alias.version_id == ModelVersion.id)
        .where(Alias.project_id == project_id, Alias.name == PRODUCTION)
    )
    return session.scalars(query).one_or_none()


def tuned(session: Session, project_ids: Iterable[UUID]) -> set[UUID]:
    """Return those of the projects that were ever tuned, or are to be."""
    query = select(Tuning.project_id).where(Tuning.project_id.in_(list(project_ids))).distinct()
    return set(session.scalars(query))


def unfinished_job(session: Session, project_id: UUID) -> str | None:
    """Return what of the project is queued or running: `tuning`, `batch`, or nothing."""
    for jobs in KINDS:
        row = jobs.table
        found = exists().where(row.project_id == project_id, row.state.not_in(FINAL))
        if session.scalar(select(found)):
            return jobs.noun
    return None


def has_images(session: Session, class_id: UUID) -> bool:
    """Say whether the class has images, tombstones counted."""
    return bool(session.scalar(select(exists().where(Image.class_id == class_id))))


def set_positions(session: Session, order: Sequence[UUID]) -> None:
    """Give the classes the places that they have in `order`."""
    for position, class_id in enumerate(order):
        session.execute(
            update(ProjectClass).where(ProjectClass.id == class_id).values(position=position)
        )
