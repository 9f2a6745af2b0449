"""Bearer API keys: who asks, and whether their role may."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.core.access import Principal
from app.core.errors import Unauthenticated
from app.core.tables import KeyRole
from app.http.gateway import GatewayDep, get_gateway
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
        NotFound: the address names a project that the key does not see.
    """
    if gateway.settings.auth.auth == "off":
        return Principal(None, "authentication is off", "admin")
    if credentials is None:
        raise Unauthenticated(
            "The request has no API key.",
            fix="Send the header 'Authorization: Bearer sl_…'; `shotline keys create` makes a key.",
            field="Authorization",
        )
    principal = gateway.keys.principal(credentials.credentials)
    project = parse_uuid(request.path_params.get("project"))
    if project is not None:
        principal.require_project(project, "project", project)
    return principal


async def authenticate(request: Request) -> None:
    """Refuse a request without a valid key before its body is read.

    Raises:
        Unauthenticated, NotFound: see `get_principal`.
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
