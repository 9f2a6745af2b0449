"""Columns that mean the same on SQLite and PostgreSQL."""

import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from sqlalchemy import JSON, DateTime, Dialect, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB

# JSON that PostgreSQL can index.
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def as_json(model: BaseModel) -> dict[str, Any]:
    """Return the model as JSON that every database can keep: what is not a number is null."""
    shown: dict[str, Any] = json.loads(model.model_dump_json())
    return shown


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time: aware and in UTC on both sides, stored without offset by SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: nobody could say what they mean."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; give an aware time.")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(
        self,
        value: Any | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """Return an aware time in UTC."""
        if value is None:
            return None
        time: datetime = value
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
