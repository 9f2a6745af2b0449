"""Projects; the list of a project's classes is in `class_list`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.errors import Conflict, Duplicate, NotFound
from app.core.tables import KeepImages, Project, ProjectClass, Split
from app.projects import repository
from app.projects.decisions import set_policy
from models.classes import normalise_name
from models.errors import BadView
from models.imaging import DECODER_VERSION, View
from models.names import NAME_LENGTH, clean_text, printable
from models.trust.policy import DecisionPolicy


@dataclass(frozen=True)
class ClassView:
    """A class and how many images it has in each split."""

    row: ProjectClass
    images: dict[Split, int]


@dataclass(frozen=True)
class ProjectView:
    """A project, its classes in order, and whether their list is frozen."""

    row: Project
    classes: list[ClassView] = field(default_factory=list)
    frozen: bool = False

    @property
    def id(self) -> UUID:
        """The project's id."""
        return self.row.id


def create_project(
    session: Session,
    principal: Principal,
    *,
    name: str,
    view: View | None = None,
    keep_images: KeepImages = "undecidable",
) -> Project:
    """Make a project, without classes yet.

    Raises:
        Forbidden: the key belongs to one project.
        BadName: a name that cannot be used.
        BadView: a view that this version cannot apply.
        Duplicate: the name is taken.
    """
    principal.require_all_projects()
    clean = clean_text(name, "name", max_length=NAME_LENGTH)
    project = Project(
        name=clean,
        name_key=normalise_name(clean),
        view=_stored(view or View()),
        keep_images=keep_images,
    )
    session.add(project)
    repository.flush(session, _name_taken(clean))
    audit.record(
        session, "project.create", project.id, project=project.id, after=_recorded(project)
    )
    repository.note_change(session, project.id)
    return project


def list_projects(
    session: Session, principal: Principal, *, name: str | None, after: UUID | None, limit: int
) -> list[ProjectView]:
    """Return the projects that `principal` sees; only the one called `name` where that is given."""
    rows = repository.page(
        session,
        only=principal.project_id,
        name_key=None if name is None else normalise_name(printable(name)),
        after=after,
        limit=limit,
    )
    return _describe_all(session, rows)


def get_project(session: Session, principal: Principal, project_id: UUID) -> Project:
    """Return the project.

    Raises:
        NotFound: no such project, or not for this key.
    """
    principal.require_project(project_id, "project", project_id)
    project = repository.get(session, project_id)
    if project is None:
        raise NotFound.of("project", project_id)
    return project


def lock_project(session: Session, principal: Principal, project_id: UUID) -> Project:
    """Return the project with other writers of it held back; see `get_project`."""
    principal.require_project(project_id, "project", project_id)
    project = repository.lock(session, project_id)
    if project is None:
        raise NotFound.of("project", project_id)
    return project


def change_project(
    session: Session,
    principal: Principal,
    project_id: UUID,
    *,
    name: str | None = None,
    view: View | None = None,
    keep_images: KeepImages | None = None,
    decisions: DecisionPolicy | None = None,
    retention: Mapping[str, int | Literal["default"] | None] | None = None,
) -> ProjectView:
    """Change what is given. A new view counts from the next tuning.

    Raises:
        NotFound, BadName, Duplicate: as above.
        BadInput: `decisions` that cannot be made, see `app.projects.decisions`.
        Forbidden: `retention`, which deletes, by other than an admin.
    """
    if retention is not None:
        principal.require_role("admin")
    project = lock_project(session, principal, project_id)
    before = _recorded(project)
    if retention is not None:
        rules = {**project.retention, **retention}
        project.retention = {name: days for name, days in rules.items() if days != "default"}
    if view is not None:
        project.view = _stored(view)
    if keep_images is not None:
        project.keep_images = keep_images
    if decisions is not None:
        set_policy(session, project, decisions)
    if name is not None:
        clean = clean_text(name, "name", max_length=NAME_LENGTH)
        project.name, project.name_key = clean, normalise_name(clean)
        repository.flush(session, _name_taken(clean))
    audit.record(
        session,
        "project.change",
        project_id,
        project=project_id,
        before=before,
        after=_recorded(project),
    )
    if keep_images is not None or decisions is not None:
        repository.note_change(session, project_id)
    return describe(session, project)


def delete_project(session: Session, principal: Principal, project_id: UUID) -> None:
    """Delete a project with everything that belongs to it; its blobs are swept later.

    Raises:
        NotFound: as above.
        Conflict: a tuning or a batch of it is queued or running.
    """
    project = lock_project(session, principal, project_id)
    unfinished = repository.unfinished_job(session, project_id)
    if unfinished is not None:
        raise Conflict(
            f"The project {project.name!r} has a {unfinished} that is not finished.",
            fix=f"Cancel the {unfinished} or wait for its end, then delete the project.",
            field="project",
        )
    classes = [row.name for row in repository.classes(session, [project_id])]
    before = _recorded(project) | {"classes": classes}
    audit.record(session, "project.delete", project_id, project=project_id, before=before)
    repository.remove(session, project_id)
    repository.note_deletion(session)


def describe(session: Session, project: Project) -> ProjectView:
    """Return the project with its classes and counts."""
    return _describe_all(session, [project])[0]


def _describe_all(session: Session, rows: Sequence[Project]) -> list[ProjectView]:
    ids = [row.id for row in rows]
    counts: dict[UUID, dict[Split, int]] = defaultdict(lambda: {"train": 0, "holdout": 0})
    for found in repository.image_counts(session, ids):
        counts[found.class_id][found.split] = found.images
    classes: dict[UUID, list[ClassView]] = defaultdict(list)
    for row in repository.classes(session, ids):
        classes[row.project_id].append(ClassView(row, counts[row.id]))
    frozen = repository.tuned(session, ids)
    return [ProjectView(row, classes[row.id], row.id in frozen) for row in rows]


def _recorded(project: Project) -> dict[str, Any]:
    return audit.columns(project, "name", "view", "keep_images", "retention", "decisions")


def _name_taken(name: str) -> Duplicate:
    return Duplicate(
        f"A project with the name {name!r} is there already (capitals, '_', '-' and spaces count as"
        " the same).",
        fix="Choose another name, or use the project that is there.",
        field="name",
    )


def view_of(project: Project) -> View:
    """Return how the project looks at an image from the next tuning on.

    That is with the present decoder, whichever it was made with: its versions keep theirs.
    """
    stored: dict[str, Any] = project.view
    return View.model_validate(stored | {"decoder": DECODER_VERSION})


def _stored(view: View) -> dict[str, Any]:
    if view.decoder != DECODER_VERSION:
        raise BadView(
            f"The view names the decoder {view.decoder!r}; this is {DECODER_VERSION!r}.",
            fix="Leave decoder out.",
            field="view.decoder",
        )
    return view.model_dump(mode="json")
