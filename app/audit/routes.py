"""`/v1/audit`."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from app.audit import service
from app.audit.schemas import EntryOut
from app.core.clock import UtcTime
from app.core.errors import Forbidden, NotFound
from app.http.authentication import Admin
from app.http.gateway import ReaderDep
from app.http.pagination import Page, PageDep
from app.http.problems import responses
from app.http.routing import Route

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=Route)


@router.get("", summary="List what was changed", responses=responses(Forbidden, NotFound))
def list_all(
    principal: Admin,
    session: ReaderDep,
    page: PageDep,
    project: Annotated[UUID | None, Query(description="Of one project, deleted or not.")] = None,
    action: Annotated[
        str | None, Query(max_length=64, description="Such as `alias.promote`.")
    ] = None,
    since: Annotated[UtcTime | None, Query(description="From this time on.")] = None,
) -> Page[EntryOut]:
    """List the record of changes, the first one first; a key of a project sees that project's.

    `shotline audit verify` tells whether it is whole.
    """
    found = service.list_entries(
        session,
        principal,
        project_id=project,
        action=action,
        since=since,
        after=page.after,
        limit=page.fetch,
    )
    return page.page(found, EntryOut.of)
