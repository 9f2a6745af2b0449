"""Entries of the record of changes as JSON."""

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.audit.service import EntryView, state_of

_ID = "01a20b48-d9d8-77c9-9f13-d3234f8739ae"


class EntryOut(BaseModel):
    """One change."""

    sequence: int = Field(description="1, 2, 3 … without gaps.", examples=[42])
    at: datetime = Field(description="By the database's clock.")
    key: UUID | None = Field(description="The API key; null for what needs none.", examples=[_ID])
    actor: str = Field(description="The key's name at that time.", examples=["line lead"])
    action: str = Field(examples=["alias.promote"])
    kind: str = Field(examples=["alias"])
    object: str | None = Field(description="What was changed.", examples=["production"])
    project: UUID | None = Field(examples=[_ID])
    before: Any = Field(description="Null where there was nothing.", examples=[{"version": 1}])
    after: Any = Field(description="Null where there is nothing.", examples=[{"version": 2}])
    request_id: str | None = Field(examples=["line-3.42"])
    mac: str = Field(description="Seals this entry and all before it.", examples=["9f2c…"])

    @classmethod
    def of(cls, found: EntryView) -> Self:
        """Return the entry as JSON shows it."""
        row = found.row
        return cls(
            sequence=row.sequence,
            at=row.at,
            key=row.actor_id,
            actor=row.actor,
            action=row.action,
            kind=row.kind,
            object=row.object_id,
            project=row.project_id,
            before=state_of(row.before),
            after=state_of(row.after),
            request_id=row.request_id,
            mac=row.mac,
        )
