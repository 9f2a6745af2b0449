"""The time of this machine. What leases are judged by is `app.core.database.database_now`."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime


def utc_now() -> datetime:
    """Return the present, aware and in UTC."""
    return datetime.now(UTC)


def to_utc(moment: datetime) -> datetime:
    """Return an aware time in UTC.

    Raises:
        ValueError: it lies beyond the years 1 to 9999 there.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("in UTC it is not within the years 1 to 9999") from None


# A time that a request gives: with a zone, and one that can be stored.
UtcTime = Annotated[AwareDatetime, AfterValidator(to_utc)]
