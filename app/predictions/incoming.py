"""An image to be decided on, whichever body it came in."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Origin:
    """Where an image comes from, as the line tells it; kept with the prediction."""

    image_id: str | None = None
    part_id: str | None = None
    station: str | None = None
    captured_at: datetime | None = None


NO_ORIGIN = Origin()


@dataclass(frozen=True)
class IncomingImage:
    """An image to be decided on.

    Attributes:
        origin: where it comes from.
        read: returns the bytes; raises `BadImage` where they cannot be had.
    """

    origin: Origin
    read: Callable[[], bytes]
