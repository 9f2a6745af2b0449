"""Ids that sort by the time they were made."""

from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Return a UUIDv7; within one process each is greater than the one before."""
    return uuid7()


def first_id_at(moment: datetime) -> UUID:
    """Return the smallest UUIDv7 of that millisecond: all ids made before are smaller."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62)


def time_of(identifier: UUID) -> float:
    """Return when a UUIDv7 was made, in seconds since 1970."""
    return (identifier.int >> 80) / 1000
