"""Images that are there: listing, relabelling, deleting, and their bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.clock import utc_now
from app.core.errors import BadReference, NotFound
from app.core.tables import Image, ProjectClass, Split
from app.findings import repository as findings
from app.images import repository
from app.projects import repository as projects
from app.projects import service as project_service
from models.classes import normalise_name
from models.names import printable


@dataclass(frozen=True)
class ImageView:
    """An image and its class."""

    row: Image
    label: ProjectClass

    @property
    def id(self) -> UUID:
        """The image's id."""
        return self.row.id


def list_images(
    session: Session,
    principal: Principal,
    project_id: UUID,
    *,
    label: str | None = None,
    split: Split | None = None,
    group: str | None = None,
    sha256: str | None = None,
    after: UUID | None,
    limit: int,
) -> list[ImageView]:
    """Return the project's images in the order they came.

    Raises:
        NotFound: no such project.
        BadReference: a label that the project has not.
    """
    project_service.get_project(session, principal, project_id)
    classes = projects.classes(session, [project_id])
    wanted = repository.Filter(
        label=None if label is None else find_class(classes, label).id,
        split=split,
        group=None if group is None else printable(group),
        sha256=None if sha256 is None else printable(sha256),
    )
    rows = repository.page(session, project_id, wanted, after=after, limit=limit)
    by_id = {row.id: row for row in classes}
    return [ImageView(row, by_id[row.class_id]) for row in rows]


def get_image(session: Session, principal: Principal, image_id: UUID) -> ImageView:
    """Return the image.

    Raises:
        NotFound: no such image, deleted, or not for this key.
    """
    row = repository.get(session, image_id)
    if row is None:
        raise NotFound.of("image", image_id)
    principal.require_project(row.project_id, "image", image_id)
    return ImageView(row, repository.class_of(session, row.class_id))


def relabel(session: Session, principal: Principal, image_id: UUID, label: str) -> ImageView:
    """Put the image under another class of its project; snapshots keep what they were frozen with.

    Raises:
        NotFound: as above.
        BadReference: a label that the project has not.
    """
    # The class must not be deleted between here and the commit.
    row = _locked_image(session, principal, image_id)
    classes = projects.classes(session, [row.project_id])
    before = repository.class_of(session, row.class_id)
    found = find_class(classes, label)
    row.class_id = found.id
    session.flush()
    audit.record(
        session,
        "image.relabel",
        image_id,
        project=row.project_id,
        before={"label": before.name, "class": before.id},
        after={"label": found.name, "class": found.id},
    )
    return ImageView(row, found)


def delete_image(session: Session, principal: Principal, image_id: UUID) -> None:
    """Delete the image; where a snapshot holds it, a tombstone and the bytes stay.

    Raises:
        NotFound: as above.
    """
    # A snapshot must not be frozen between here and the commit.
    row = _locked_image(session, principal, image_id)
    label = repository.class_of(session, row.class_id).name
    before = audit.columns(row, "sha256", "file_name", "split", "group") | {"label": label}
    audit.record(session, "image.delete", image_id, project=row.project_id, before=before)
    if repository.in_snapshot(session, image_id):
        row.deleted_at = utc_now()
    else:
        session.delete(row)
    findings.delete_naming(session, row.project_id, row.sha256)
    session.flush()


def _locked_image(session: Session, principal: Principal, image_id: UUID) -> Image:
    """Return the image as it is under its project's lock: another may have deleted it meanwhile."""
    project_id = get_image(session, principal, image_id).row.project_id
    project_service.lock_project(session, principal, project_id)
    return get_image(session, principal, image_id).row


def find_class(classes: Sequence[ProjectClass], label: str) -> ProjectClass:
    """Return the class of that name.

    Raises:
        BadReference: there is none.
    """
    key = normalise_name(label)
    for row in classes:
        if row.name_key == key:
            return row
    shown = ", ".join(repr(row.name) for row in classes) or "none"
    raise BadReference(
        f"The project has no class {printable(label)!r}; it has {shown}.",
        fix="Use one of them, or add the class first.",
        field="label",
    )
