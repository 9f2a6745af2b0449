"""Snapshots: what a tuning ran on, frozen, so that it can be run again to the same result."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.errors import NotFound
from app.core.storage import Storage
from app.core.tables import Image, Project, Snapshot, SnapshotImage
from app.images import repository as images
from app.projects import class_list
from app.projects import repository as projects
from app.snapshots import repository
from models.classes import ClassSpec
from models.dataset import LabelledImage, check_images, snapshot_digest


@dataclass(frozen=True)
class SnapshotContent:
    """A snapshot as `models` takes it: the classes in order, and the labelled images."""

    digest: str
    classes: list[ClassSpec]
    images: list[LabelledImage]


def freeze(session: Session, project: Project, storage: Storage) -> Snapshot:
    """Freeze the project's classes and images; one that is the same is used again.

    Args:
        session: its transaction holds the project locked (`projects.service.lock_project`).
        project: the project.
        storage: where the images' bytes are; nothing is read.

    Raises:
        BadDataset: fewer than two classes, or a class with too few images.
        BadName: two classes with one prompt name.
    """
    specs, rows, labelled = labelled_images(session, project, storage)
    check_images(specs, labelled)
    digest = snapshot_digest(specs, labelled)
    found = repository.find(session, project.id, digest)
    # A tombstone may stand for an image that was sent again since: its bytes are the same.
    return found or _insert(session, project, specs, digest, rows, labelled)


class ProjectImages(NamedTuple):
    """A project's classes and labelled images as they are, in the order of a snapshot."""

    specs: list[ClassSpec]
    rows: list[Image]
    labelled: list[LabelledImage]


def labelled_images(session: Session, project: Project, storage: Storage) -> ProjectImages:
    """Return the project's classes and images as they are; nothing of the bytes is read."""
    classes = projects.classes(session, [project.id])
    places = {row.id: place for place, row in enumerate(classes)}
    rows = sorted(
        images.all_of(session, project.id), key=lambda row: (places[row.class_id], row.sha256)
    )
    labelled = [_labelled(row, places[row.class_id], storage) for row in rows]
    return ProjectImages(class_list.class_specs(classes), rows, labelled)


def read_snapshot(session: Session, storage: Storage, snapshot_id: UUID) -> SnapshotContent:
    """Return what a snapshot holds; the images' bytes are read, and verified, when asked for.

    Raises:
        NotFound: no such snapshot.
    """
    snapshot = repository.get(session, snapshot_id)
    if snapshot is None:
        raise NotFound.of("snapshot", snapshot_id)
    labelled = [
        LabelledImage(
            sha256=entry.sha256,
            label=entry.label,
            group=entry.group,
            split=entry.split,
            read=partial(storage.read, entry.sha256),
            name=name,
        )
        for entry, name in repository.entries(session, snapshot_id)
    ]
    specs = [ClassSpec.model_validate(spec) for spec in snapshot.classes]
    return SnapshotContent(snapshot.digest, specs, labelled)


def _insert(
    session: Session,
    project: Project,
    specs: Sequence[ClassSpec],
    digest: str,
    rows: Sequence[Image],
    labelled: Sequence[LabelledImage],
) -> Snapshot:
    snapshot = Snapshot(
        project_id=project.id,
        digest=digest,
        classes=[spec.model_dump() for spec in specs],
        image_count=len(rows),
    )
    session.add(snapshot)
    session.flush()
    entries = [
        SnapshotImage(
            snapshot_id=snapshot.id,
            position=position,
            image_id=row.id,
            sha256=row.sha256,
            label=image.label,
            split=image.split,
            group=image.group,
        )
        for position, (row, image) in enumerate(zip(rows, labelled, strict=True))
    ]
    repository.add(session, snapshot, entries)
    after = audit.columns(snapshot, "digest", "image_count")
    audit.record(session, "snapshot.freeze", snapshot.id, project=project.id, after=after)
    return snapshot


def _labelled(row: Image, label: int, storage: Storage) -> LabelledImage:
    """Return an uploaded image as the core knows it; its bytes are read when asked for."""
    return LabelledImage(
        sha256=row.sha256,
        label=label,
        group=row.group,
        split=row.split,
        read=partial(storage.read, row.sha256),
        name=row.file_name,
    )
