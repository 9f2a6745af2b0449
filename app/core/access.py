"""Who asks, and what they may do."""

from dataclasses import dataclass
from typing import get_args
from uuid import UUID

from app.core.errors import Forbidden, NotFound
from app.core.tables import KeyRole

# From the least to the most: each role may do what those before it may.
ROLES: tuple[KeyRole, ...] = get_args(KeyRole)


@dataclass(frozen=True)
class Principal:
    """The holder of an API key.

    Attributes:
        key_id: the key; None where authentication is off.
        name: the key's name.
        role: what it may do.
        project_id: the one project it sees; None for all.
    """

    key_id: UUID | None
    name: str
    role: KeyRole
    project_id: UUID | None = None

    def has_role(self, role: KeyRole) -> bool:
        """Say whether this key may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def require_role(self, role: KeyRole) -> None:
        """Raise `Forbidden` unless this key may do what `role` may."""
        if not self.has_role(role):
            raise Forbidden(
                f"The API key {self.name!r} has the role {self.role!r};"
                f" this needs {role!r} or more.",
                fix=f"Use a key with the role {role!r}; an admin can make one.",
            )

    def require_project(self, project_id: UUID, kind: str, identifier: object) -> None:
        """Raise `NotFound` for the thing called `kind` where its project is not this key's.

        Not `Forbidden`: a key must not learn what exists beyond its project.
        """
        if self.project_id not in (None, project_id):
            raise NotFound.of(kind, identifier)

    def require_all_projects(self) -> None:
        """Raise `Forbidden` for a key that belongs to one project."""
        if self.project_id is not None:
            raise Forbidden(
                f"The API key {self.name!r} belongs to one project; this concerns all.",
                fix="Use a key that belongs to no project.",
            )
