"""The time of this machine. What leases are judged by is `app.core.database.database_now`."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present, aware and in UTC."""
    return datetime.now(UTC)
