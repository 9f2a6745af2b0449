"""API keys as JSON."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.core.access import Principal
from app.core.clock import UtcTime
from app.core.tables import ApiKey, KeyRole

_ID = "01a20b48-d9d8-77c9-9f13-d3234f8739ae"


class KeyIn(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "line 3 camera", "role": "operator"}]},
    )

    name: str = Field(
        description="Who holds it.", json_schema_extra={"minLength": 1, "maxLength": 100}
    )
    role: KeyRole = Field(description="Each role may do what those before it may.")
    project: UUID | None = Field(None, description="The one project it sees; null for all.")
    expires_at: UtcTime | None = Field(None, description="Null for a key without end.")


class KeyOut(BaseModel):
    """A key as lists show it: never the key itself."""

    id: UUID = Field(examples=[_ID])
    name: str = Field(examples=["line 3 camera"])
    prefix: str = Field(description="What the key begins with.", examples=["sl_k2v7qd4m"])
    role: KeyRole = Field(examples=["operator"])
    project: UUID | None = Field(examples=[None])
    created_at: datetime
    expires_at: datetime | None = Field(examples=[None])
    revoked_at: datetime | None = Field(examples=[None])

    @classmethod
    def of(cls, row: ApiKey) -> Self:
        """Return `row` as JSON shows it."""
        return cls(**_shown(row))


class NewKeyOut(KeyOut):
    """A key just made."""

    key: str = Field(
        description="The key. It is shown this once.",
        examples=["sl_k2v7qd4m_8vY3k1x0bWc9n2Q7rT5uZ4aD6eF8gH0jK2lM4nP6qR8"],
    )

    @classmethod
    def of_new(cls, row: ApiKey, plaintext: str) -> Self:
        """Return `row` with its plaintext."""
        return cls(**_shown(row), key=plaintext)


class PrincipalOut(BaseModel):
    """Who the gateway takes the caller for."""

    id: UUID | None = Field(examples=[_ID])
    name: str = Field(examples=["line 3 camera"])
    role: KeyRole = Field(examples=["operator"])
    project: UUID | None = Field(examples=[None])

    @classmethod
    def of(cls, principal: Principal) -> Self:
        """Return `principal` as JSON shows it."""
        return cls(
            id=principal.key_id,
            name=principal.name,
            role=principal.role,
            project=principal.project_id,
        )


def _shown(row: ApiKey) -> dict[str, object]:
    return {
        "id": row.id,
        "name": row.name,
        "prefix": row.prefix,
        "role": row.role,
        "project": row.project_id,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }
