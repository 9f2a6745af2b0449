"""`/v1/keys`."""

from uuid import UUID

from fastapi import APIRouter, status

from app.core.database import after_commit
from app.core.errors import Forbidden, NotFound
from app.http.authentication import Admin, Viewer
from app.http.gateway import GatewayDep, ReaderDep, SessionDep
from app.http.pagination import Page, PageDep
from app.http.problems import responses
from app.http.routing import Route
from app.keys import service
from app.keys.schemas import KeyIn, KeyOut, NewKeyOut, PrincipalOut
from models.errors import BadInput

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=Route)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Make an API key",
    responses=responses(BadInput, Forbidden, NotFound),
)
def create(body: KeyIn, principal: Admin, session: SessionDep, gateway: GatewayDep) -> NewKeyOut:
    """Make a key; the answer is the only place that ever shows it."""
    if principal.project_id is not None and body.project != principal.project_id:
        principal.require_all_projects()
    made = service.create_key(
        session,
        name=body.name,
        role=body.role,
        project_id=body.project,
        expires_at=body.expires_at,
    )
    after_commit(session, gateway.keys.refresh)
    return NewKeyOut.of_new(made.row, made.plaintext)


@router.get("", summary="List API keys", responses=responses(Forbidden))
def list_all(principal: Admin, session: ReaderDep, page: PageDep) -> Page[KeyOut]:
    """List the keys, revoked ones too, in the order they were made."""
    rows = service.list_keys(session, principal, after=page.after, limit=page.fetch)
    return page.page(rows, KeyOut.of)


@router.get("/current", summary="Who am I?")
def current(principal: Viewer) -> PrincipalOut:
    """Say whom the gateway takes the caller for."""
    return PrincipalOut.of(principal)


@router.delete(
    "/{key:uuid}",  # so that an address beside it, such as /current, is never taken for an id
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Revoke an API key",
    responses=responses(Forbidden, NotFound),
)
def revoke(key: UUID, principal: Admin, session: SessionDep, gateway: GatewayDep) -> None:
    """Revoke a key: it is refused within a second. Revoking it again changes nothing."""
    service.revoke_key(session, principal, key)
    after_commit(session, gateway.keys.refresh)
