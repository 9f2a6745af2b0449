"""Bearer API keys: who asks, and whether their role may."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core.access import Principal
from app.core.audit import Actor, act_as
from app.core.errors import Unauthenticated
from app.core.tables import KeyRole
from app.http.gateway import Gateway, GatewayDep, get_gateway
from app.http.problems import request_id
from app.keys.service import parse_uuid

_bearer = HTTPBearer(
    scheme_name="API key", description="`Authorization: Bearer sl_…`", auto_error=False
)


async def get_principal(
    request: Request,
    gateway: GatewayDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """Return the holder of the request's API key; never waits for the database.

    Raises:
        Unauthenticated: no key, or one that is unknown, expired or revoked.
        TooManyFailures: one more of those, after many.
        NotFound: the address names a project that the key does not see.
    """
    principal = _holder(gateway, request, credentials)
    # For all that this request changes: the threads that serve it know their request's actor.
    act_as(Actor(principal.key_id, principal.name, request_id(request)))
    project = parse_uuid(request.path_params.get("project"))
    if project is not None:
        principal.require_project(project, "project", project)
    return principal


def _holder(
    gateway: Gateway, request: Request, credentials: HTTPAuthorizationCredentials | None
) -> Principal:
    if gateway.settings.auth.auth == "off":
        return Principal(None, "authentication is off", "admin")
    if credentials is None:
        gateway.failed_logins.missing()
        raise Unauthenticated(
            "The request has no API key.",
            fix="Send the header 'Authorization: Bearer sl_…'; `shotline keys create` makes a key.",
            field="Authorization",
        )
    key = credentials.credentials
    try:
        return gateway.keys.principal(key)
    except Unauthenticated as error:
        address = None if request.client is None else request.client.host
        raise gateway.failed_logins.answer(error, key, address) from None


async def authenticate(request: Request) -> None:
    """Refuse a request without a valid key before its body is read.

    Raises:
        Unauthenticated, TooManyFailures, NotFound: see `get_principal`.
    """
    await get_principal(request, await get_gateway(request), await _bearer(request))


PrincipalDep = Annotated[Principal, Depends(get_principal)]


class RequiresRole:
    """A dependency that lets only `role` and those above it in; found on a route by tests."""

    def __init__(self, role: KeyRole) -> None:
        self.role: KeyRole = role

    async def __call__(self, principal: PrincipalDep) -> Principal:
        """Return the principal.

        Raises:
            Forbidden: the role is too low.
        """
        principal.require_role(self.role)
        return principal


Viewer = Annotated[Principal, Depends(RequiresRole("viewer"))]
Operator = Annotated[Principal, Depends(RequiresRole("operator"))]
Engineer = Annotated[Principal, Depends(RequiresRole("engineer"))]
Admin = Annotated[Principal, Depends(RequiresRole("admin"))]
