"""Cursor pagination: lists by id, which is by time, and a cursor that only we read."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from app.core.errors import BadRequest
from app.http.numbers import Whole

Item = TypeVar("Item")
Row = TypeVar("Row")

MAX_LIMIT = 500


class Page(BaseModel, Generic[Item]):
    """One page of a list, and the cursor of the next."""

    items: list[Item]
    next_cursor: str | None = Field(
        description="Send it as `cursor` for the next page; null on the last one.",
        examples=["AZ8aK2Zzcq-3eBz8y1n0Aw"],
    )


class PageQuery(BaseModel):
    """What the caller asked for: at most `limit` rows with ids beyond `after`."""

    limit: int
    after: UUID | None

    @property
    def fetch(self) -> int:
        """How many rows to read: one more than asked for tells whether there is a next page."""
        return self.limit + 1

    def page(self, rows: Sequence[Row], show: Callable[[Row], Item]) -> Page[Item]:
        """Return the page of `rows` (up to `fetch` of them, each with an `id`)."""
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        cursor = _encode(shown[-1].id) if more else None  # type: ignore[attr-defined]
        return Page(items=[show(row) for row in shown], next_cursor=cursor)


def _page_query(
    limit: Annotated[Whole, Query(ge=1, le=MAX_LIMIT, description="Items on a page.")] = 50,
    cursor: Annotated[
        str | None,
        Query(
            description="`next_cursor` of the page before.",
            # Told to callers; `_decode` says more than a pattern's refusal.
            json_schema_extra={"pattern": r"^[A-Za-z0-9_\-]{22}$"},
        ),
    ] = None,
) -> PageQuery:
    return PageQuery(limit=limit, after=None if cursor is None else _decode(cursor))


PageDep = Annotated[PageQuery, Depends(_page_query)]


def _encode(identifier: UUID) -> str:
    return base64.urlsafe_b64encode(identifier.bytes).decode().rstrip("=")


def _decode(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise BadRequest(
            f"The cursor {cursor[:40]!r} is not one that this list gave.",
            fix="Use next_cursor as it came, or none for the first page.",
            field="cursor",
        ) from None
