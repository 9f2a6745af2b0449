"""`/v1/projects` and the classes below it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response, status

from app.core.database import after_commit
from app.core.errors import Conflict, Duplicate, Forbidden, Frozen, NotFound
from app.http.authentication import Admin, Engineer, Viewer
from app.http.gateway import GatewayDep, ReaderDep, SessionDep
from app.http.pagination import Page, PageDep
from app.http.problems import responses
from app.http.routing import Route
from app.projects import class_list, service
from app.projects.schemas import (
    ClassChange,
    ClassIn,
    ClassOrder,
    ProjectChange,
    ProjectIn,
    ProjectOut,
)
from models.errors import BadInput, BadName, BadView

router = APIRouter(prefix="/v1/projects", route_class=Route)

ClassPath = Annotated[UUID, Path(alias="class")]


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    tags=["projects"],
    summary="Make a project",
    responses=responses(BadInput, BadName, BadView, Duplicate, Forbidden),
)
def create(
    body: ProjectIn, principal: Engineer, session: SessionDep, response: Response
) -> ProjectOut:
    """Make a project, with its first classes or without."""
    made = service.create_project(
        session,
        principal,
        name=body.name,
        view=body.view,
        keep_images=body.keep_images,
    )
    class_list.add_classes(session, made, [entry.spec() for entry in body.classes])
    if body.decisions is not None:
        service.change_project(session, principal, made.id, decisions=body.decisions)
    response.headers["Location"] = f"/v1/projects/{made.id}"
    return ProjectOut.of(service.describe(session, made))


@router.get("", tags=["projects"], summary="List projects")
def list_all(
    principal: Viewer,
    session: ReaderDep,
    page: PageDep,
    name: Annotated[
        str | None, Query(max_length=200, description="Only the project of this name.")
    ] = None,
) -> Page[ProjectOut]:
    """List the projects that the key sees, in the order they were made."""
    found = service.list_projects(session, principal, name=name, after=page.after, limit=page.fetch)
    return page.page(found, ProjectOut.of)


@router.get(
    "/{project}", tags=["projects"], summary="Show a project", responses=responses(NotFound)
)
def show(project: UUID, principal: Viewer, session: ReaderDep) -> ProjectOut:
    """Show a project with its classes and how many images each has."""
    row = service.get_project(session, principal, project)
    return ProjectOut.of(service.describe(session, row))


@router.patch(
    "/{project}",
    tags=["projects"],
    summary="Change a project",
    responses=responses(BadInput, BadName, BadView, Duplicate, Forbidden, NotFound),
)
def change(
    project: UUID, body: ProjectChange, principal: Engineer, session: SessionDep
) -> ProjectOut:
    """Change what is given; what is left out or null stays. Only an admin changes `retention`."""
    changed = service.change_project(
        session,
        principal,
        project,
        name=body.name,
        view=body.view,
        keep_images=body.keep_images,
        decisions=body.decisions,
        retention=None if body.retention is None else body.retention.given(),
    )
    return ProjectOut.of(changed)


@router.delete(
    "/{project}",
    status_code=status.HTTP_204_NO_CONTENT,
    tags=["projects"],
    summary="Delete a project",
    responses=responses(Conflict, Forbidden, NotFound),
)
def delete(project: UUID, principal: Admin, session: SessionDep, gateway: GatewayDep) -> None:
    """Delete a project with its images, tunings, versions, predictions and keys."""
    service.delete_project(session, principal, project)
    after_commit(session, gateway.keys.refresh)


@router.post(
    "/{project}/classes",
    status_code=status.HTTP_201_CREATED,
    tags=["classes"],
    summary="Add a class",
    responses=responses(BadInput, BadName, Duplicate, Frozen, Forbidden, NotFound),
)
def add_class(project: UUID, body: ClassIn, principal: Engineer, session: SessionDep) -> ProjectOut:
    """Add a class at the end of the list; not after the first tuning."""
    return ProjectOut.of(class_list.add_class(session, principal, project, body.spec()))


@router.put(
    "/{project}/class-order",
    tags=["classes"],
    summary="Reorder the classes",
    responses=responses(BadInput, Frozen, Forbidden, NotFound),
)
def reorder(
    project: UUID, body: ClassOrder, principal: Engineer, session: SessionDep
) -> ProjectOut:
    """Put the classes into a new order; not after the first tuning."""
    changed = class_list.reorder_classes(session, principal, project, body.classes)
    return ProjectOut.of(changed)


@router.patch(
    "/{project}/classes/{class}",
    tags=["classes"],
    summary="Change a class",
    responses=responses(BadInput, BadName, Duplicate, Forbidden, NotFound),
)
def change_class(
    project: UUID, class_: ClassPath, body: ClassChange, principal: Engineer, session: SessionDep
) -> ProjectOut:
    """Change name, prompt name or role. Versions already tuned keep theirs."""
    changed = class_list.change_class(
        session,
        principal,
        project,
        class_,
        name=body.name,
        prompt_name=body.prompt_name,
        role=body.role,
    )
    return ProjectOut.of(changed)


@router.delete(
    "/{project}/classes/{class}",
    tags=["classes"],
    summary="Delete a class",
    responses=responses(Conflict, Frozen, Forbidden, NotFound),
)
def delete_class(
    project: UUID, class_: ClassPath, principal: Engineer, session: SessionDep
) -> ProjectOut:
    """Delete a class that has no images; not after the first tuning."""
    return ProjectOut.of(class_list.delete_class(session, principal, project, class_))
