"""Promotion as people ask for it: gates first, for what production is to be.

`app.registry.service.promote` moves any alias anywhere; this is what lets it.
"""

from uuid import UUID

from sqlalchemy.orm import Session

from app.core.access import Principal
from app.core.errors import NotFound
from app.core.settings import GateSettings
from app.projects import service as projects
from app.registry import gates, repository, service
from app.registry.service import PRODUCTION, AliasView


def promote(
    session: Session,
    principal: Principal,
    project_id: UUID,
    name: str,
    number: int,
    *,
    settings: GateSettings,
    reason: str | None = None,
    override: str | None = None,
) -> AliasView:
    """Let the alias `name` stand for version `number`, which has passed its gates.

    Args:
        session: the transaction.
        principal: who promotes.
        project_id: the project.
        name: the alias; gates stand before `production` alone.
        number: of the version.
        settings: the box's rules.
        reason: why, kept with the move.
        override: why an admin promotes it although its gates say no; kept with the move where it
            was needed.

    Raises:
        NotFound: no such project or version, or not for this key.
        BadName: no alias can be called that, or an unusable reason.
        Forbidden: an override by other than an admin.
        GatesNotPassed: the version has not shown that it is no worse.
        ProjectFrozen: all changes of the project are stopped.
    """
    if override is not None:
        principal.require_role("admin")
    project = projects.lock_project(session, principal, project_id)
    if name == PRODUCTION:
        version = repository.by_number(session, project_id, number)
        if version is None:
            raise NotFound.of("version", number)
        found = gates.view_of(session, project, version, settings)
        now = repository.alias(session, project_id, PRODUCTION)
        if found.passed or (now is not None and now.version_id == version.id):
            override = None
        elif override is None:
            gates.require_passed(found)
    return service.promote(
        session,
        principal,
        project_id,
        name,
        number,
        reason=reason,
        override=override if name == PRODUCTION else None,
    )
