"""SQL of images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from app.core.tables import Image, ProjectClass, SnapshotImage, Split

# Names in one IN list; SQLite takes 32,766 at most.
_MANY = 1000
# Images that an upload is compared with: reading what was measured of so many takes a moment.
_COMPARED = 5000


@dataclass(frozen=True)
class Filter:
    """Which images of a project to list."""

    label: UUID | None = None
    split: Split | None = None
    group: str | None = None
    sha256: str | None = None


def get(session: Session, image_id: UUID) -> Image | None:
    """Return the image, read anew, unless it is a tombstone."""
    image = session.get(Image, image_id, populate_existing=True)
    return None if image is None or image.deleted_at is not None else image


def add_all(session: Session, images: Sequence[Image]) -> None:
    """Insert `images`."""
    session.add_all(images)
    session.flush()


def page(
    session: Session, project_id: UUID, wanted: Filter, *, after: UUID | None, limit: int
) -> Sequence[Image]:
    """Return images in the order they came, without tombstones."""
    query = (
        select(Image)
        .where(Image.project_id == project_id, Image.deleted_at.is_(None))
        .order_by(Image.id)
        .limit(limit)
    )
    if wanted.label is not None:
        query = query.where(Image.class_id == wanted.label)
    if wanted.split is not None:
        query = query.where(Image.split == wanted.split)
    if wanted.group is not None:
        query = query.where(Image.group == wanted.group)
    if wanted.sha256 is not None:
        query = query.where(Image.sha256 == wanted.sha256)
    if after is not None:
        query = query.where(Image.id > after)
    return session.scalars(query).all()


def known(session: Session, project_id: UUID, digests: Iterable[str]) -> dict[str, Image]:
    """Return those of the project's images that have one of the sha256, by it."""
    found: dict[str, Image] = {}
    for some in _portions(digests):
        query = select(Image).where(
            Image.project_id == project_id, Image.deleted_at.is_(None), Image.sha256.in_(some)
        )
        found |= {image.sha256: image for image in session.scalars(query)}
    return found


def splits_of_groups(session: Session, project_id: UUID, groups: Iterable[str]) -> dict[str, Split]:
    """Return on which side of the split the groups are, for those that have images."""
    found: dict[str, Split] = {}
    for some in _portions(groups):
        query = (
            select(Image.group, Image.split)
            .where(
                Image.project_id == project_id, Image.deleted_at.is_(None), Image.group.in_(some)
            )
            .distinct()
        )
        found |= {row.group: row.split for row in session.execute(query)}
    return found


def class_of(session: Session, class_id: UUID) -> ProjectClass:
    """Return the class of an image."""
    return session.get_one(ProjectClass, class_id)


def in_snapshot(session: Session, image_id: UUID) -> bool:
    """Say whether a snapshot refers to the image."""
    return bool(session.scalar(select(exists().where(SnapshotImage.image_id == image_id))))


def all_of(session: Session, project_id: UUID) -> Sequence[Image]:
    """Return every image of the project in the order they came, without tombstones."""
    query = (
        select(Image)
        .where(Image.project_id == project_id, Image.deleted_at.is_(None))
        .order_by(Image.id)
    )
    return session.scalars(query).all()


class Measured(NamedTuple):
    """What an upload is compared with of an image."""

    file_name: str
    label: str
    group: str
    pixels: dict[str, Any]


def measured(session: Session, project_id: UUID) -> list[Measured]:
    """Return what was measured of the project's images, of the last `_COMPARED` at most."""
    query = (
        select(Image.file_name, ProjectClass.name, Image.group, Image.pixels)
        .join(ProjectClass, ProjectClass.id == Image.class_id)
        .where(
            Image.project_id == project_id, Image.deleted_at.is_(None), Image.pixels.is_not(None)
        )
        .order_by(Image.id.desc())
        .limit(_COMPARED)
    )
    return [Measured._make(row) for row in session.execute(query)]


def _portions(values: Iterable[str]) -> Iterator[list[str]]:
    listed = list(dict.fromkeys(values))
    for start in range(0, len(listed), _MANY):
        yield listed[start : start + _MANY]
