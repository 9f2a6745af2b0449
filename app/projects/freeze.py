"""A freeze: all changes of a project stop, until an admin lifts it. Predictions go on.

So do rollbacks of `production`, since a line must always be able to go back to what it knows, and
feedback, which changes nothing that decides.
"""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.clock import utc_now
from app.core.errors import NotFound, ProjectFrozen
from app.core.tables import Project
from app.projects import repository
from models.names import clean_text


class FreezeView(NamedTuple):
    """A project and its freeze, as it is stored; None where changes are not stopped."""

    project: Project
    stored: dict[str, Any] | None


def require_not_stopped(project: Project) -> None:
    """Refuse a change of a project that is frozen.

    Raises:
        ProjectFrozen: it is; who did it, when and why.
    """
    stored = project.frozen
    if stored is not None:
        raise ProjectFrozen(
            f"All changes of the project {project.name!r} were stopped by {stored['name']!r} on"
            f" {stored['at'][:16].replace('T', ' ')} UTC: {stored['reason']}",
            fix="Have an admin lift the freeze: DELETE …/freeze. Predictions, feedback and the"
            " rollback of production go on.",
            field="project",
        )


def freeze(session: Session, principal: Principal, project_id: UUID, reason: str) -> FreezeView:
    """Stop all changes; where they are stopped already, that stands as it is.

    Raises:
        NotFound: no such project, or not for this key.
        BadName: an unusable reason.
    """
    clean = clean_text(reason, "reason", max_length=500)
    project = _locked(session, principal, project_id)
    if project.frozen is None:
        project.frozen = {
            "reason": clean,
            "at": utc_now().isoformat(),
            "by": None if principal.key_id is None else str(principal.key_id),
            "name": principal.name,
        }
        session.flush()
        audit.record(
            session, "project.freeze", project_id, project=project_id, after={"reason": clean}
        )
    return FreezeView(project, project.frozen)


def lift(session: Session, principal: Principal, project_id: UUID) -> None:
    """Let changes be made again; nothing happens where they may be.

    Raises:
        NotFound: no such project, or not for this key.
    """
    project = _locked(session, principal, project_id)
    before = project.frozen
    if before is not None:
        project.frozen = None
        session.flush()
        audit.record(
            session, "project.unfreeze", project_id, project=project_id, before=dict(before)
        )


def _locked(session: Session, principal: Principal, project_id: UUID) -> Project:
    principal.require_project(project_id, "project", project_id)
    project = repository.lock(session, project_id)
    if project is None:
        raise NotFound.of("project", project_id)
    return project
