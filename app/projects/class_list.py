"""The list of a project's classes.

From the first tuning on a class keeps its place and the list its members, so that every version of
a project answers with the same labels in the same order. Names, prompt names and roles may still be
changed: an artifact carries the list it was tuned with, and a change counts from the next tuning.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.errors import BadReference, Conflict, Duplicate, Frozen, NotFound
from app.core.tables import Project, ProjectClass
from app.projects import repository
from app.projects.decisions import rename_class
from app.projects.service import ProjectView, describe, lock_project
from models.classes import ClassSpec, Role, class_spec, normalise_name
from models.errors import BadInput, BadName

MAX_CLASSES = 1000


def add_class(
    session: Session, principal: Principal, project_id: UUID, spec: ClassSpec
) -> ProjectView:
    """Add a class at the end of the list.

    Raises:
        NotFound: as above.
        Duplicate: a class of this name is there.
        Frozen: the project was tuned.
    """
    project = lock_project(session, principal, project_id)
    require_not_frozen(session, project)
    add_classes(session, project, [spec])
    return describe(session, project)


def add_classes(session: Session, project: Project, specs: Sequence[ClassSpec]) -> None:
    """Add classes at the end of the list of a locked, unfrozen project.

    Raises:
        Duplicate: a class of one of the names is there.
        BadInput: too many classes.
    """
    rows = repository.classes(session, [project.id])
    if len(rows) + len(specs) > MAX_CLASSES:
        raise BadInput(
            f"The project {project.name!r} would have {len(rows) + len(specs)} classes;"
            f" at most {MAX_CLASSES} are allowed.",
            fix="Name fewer classes; for an archive, check that its folders are classes.",
            field="classes",
        )
    first = max((row.position for row in rows), default=-1) + 1
    added = [
        _insert(session, project.id, position, spec)
        for position, spec in enumerate(specs, start=first)
    ]
    if added:
        after = {"classes": [{"id": row.id} | _recorded(row) for row in added]}
        audit.record(session, "class.add", project.id, project=project.id, after=after)


def change_class(
    session: Session,
    principal: Principal,
    project_id: UUID,
    class_id: UUID,
    *,
    name: str | None = None,
    prompt_name: str | None = None,
    role: Role | None = None,
) -> ProjectView:
    """Change what is given of a class; it counts from the next tuning.

    Raises:
        NotFound, BadName, Duplicate: as above.
    """
    project = lock_project(session, principal, project_id)
    row = _class(session, project, class_id)
    spec = class_spec(
        row.name if name is None else name,
        prompt_name=row.prompt_name if prompt_name is None else prompt_name,
        role=role or row.role,
    )
    before = _recorded(row)
    rename_class(project, row.name, spec.name)
    row.name, row.name_key = spec.name, normalise_name(spec.name)
    row.prompt_name, row.role = spec.prompt_name, spec.role
    repository.flush(session, _taken(spec.name))
    audit.record(
        session, "class.change", row.id, project=project_id, before=before, after=_recorded(row)
    )
    return describe(session, project)


def delete_class(
    session: Session, principal: Principal, project_id: UUID, class_id: UUID
) -> ProjectView:
    """Remove a class that has no images.

    Raises:
        NotFound, Frozen: as above.
        Conflict: it has images.
    """
    project = lock_project(session, principal, project_id)
    row = _class(session, project, class_id)
    require_not_frozen(session, project)
    if repository.has_images(session, class_id):
        raise Conflict(
            f"The class {row.name!r} has images.",
            fix="Delete or relabel them, then delete the class.",
            field="class",
        )
    audit.record(session, "class.delete", row.id, project=project_id, before=_recorded(row))
    session.delete(row)
    session.flush()
    rest = repository.classes(session, [project_id])
    repository.set_positions(session, [other.id for other in rest])
    session.expire_all()
    return describe(session, project)


def reorder_classes(
    session: Session, principal: Principal, project_id: UUID, order: Sequence[UUID]
) -> ProjectView:
    """Put the classes into `order`, which names each of them once.

    Raises:
        NotFound, Frozen: as above.
        BadInput: a class is missing, unknown or named twice.
    """
    project = lock_project(session, principal, project_id)
    require_not_frozen(session, project)
    rows = {row.id: row for row in repository.classes(session, [project_id])}
    unknown = [class_id for class_id in order if class_id not in rows]
    if unknown:
        raise BadReference(
            f"The project {project.name!r} has no class {str(unknown[0])!r}.",
            fix="Name each of the project's classes once.",
            field="classes",
        )
    if sorted(order) != sorted(rows):
        missing = ", ".join(repr(row.name) for row in rows.values() if row.id not in order)
        raise BadInput(
            f"The order names {len(order)} of {len(rows)} classes, or one twice;"
            f" missing: {missing or 'none'}.",
            fix="Name each of the project's classes once.",
            field="classes",
        )
    audit.record(
        session,
        "class.reorder",
        project_id,
        project=project_id,
        before={"order": list(rows)},
        after={"order": list(order)},
    )
    repository.set_positions(session, order)
    session.expire_all()
    return describe(session, project)


def class_specs(rows: Sequence[ProjectClass]) -> list[ClassSpec]:
    """Return classes as tunings and artifacts know them."""
    return [ClassSpec(name=row.name, prompt_name=row.prompt_name, role=row.role) for row in rows]


def is_frozen(session: Session, project_id: UUID) -> bool:
    """Say whether the list of classes can no longer be changed."""
    return bool(repository.tuned(session, [project_id]))


def require_not_frozen(session: Session, project: Project) -> None:
    """Raise `Frozen` for a project that was tuned."""
    if is_frozen(session, project.id):
        raise Frozen(
            f"The project {project.name!r} was tuned: the list of its classes and their order are"
            " fixed, so that all its versions answer alike.",
            fix="Make a new project for another list of classes; names can still be changed.",
            field="classes",
        )


def _class(session: Session, project: Project, class_id: UUID) -> ProjectClass:
    row = session.get(ProjectClass, class_id)
    if row is None or row.project_id != project.id:
        raise NotFound.of("class", class_id)
    return row


def _recorded(row: ProjectClass) -> dict[str, Any]:
    return audit.columns(row, "name", "prompt_name", "role")


def _taken(name: str) -> Duplicate:
    return Duplicate(
        f"A class with the name {name!r} is in this project already (capitals, '_', '-' and spaces"
        " count as the same).",
        fix="Choose another name, or use the class that is there.",
        field="name",
    )


def _insert(session: Session, project_id: UUID, position: int, spec: ClassSpec) -> ProjectClass:
    row = ProjectClass(
        project_id=project_id,
        position=position,
        name=spec.name,
        name_key=normalise_name(spec.name),
        prompt_name=spec.prompt_name,
        role=spec.role,
    )
    session.add(row)
    repository.flush(session, _taken(spec.name))
    return row


def name_taken(name: str, other: str) -> BadName:
    """Return the error for two names of one upload that people would read as one."""
    return BadName(
        f"The class names {other!r} and {name!r} are the same after normalisation.",
        fix="Rename one of the folders, or put their images into one.",
        field="label",
    )
