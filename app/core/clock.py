"""The time of this machine. What leases are judged by is `app.core.database.database_now`."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_NUMBER = re.compile(r"\s*[+-]?[\d_]*\.?[\d_]*(e[+-]?\d+)?\s*", re.IGNORECASE)


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


def _written(value: object) -> object:
    """Refuse numbers, which pydantic would take for seconds since 1970."""
    number = isinstance(value, str) and _NUMBER.fullmatch(value)
    if number or isinstance(value, (int, float)):
        raise ValueError("Write it as in 2026-11-24T08:15:30Z")
    return value


# A time that a request gives: with a zone, and one that can be stored.
UtcTime = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(to_utc)]
