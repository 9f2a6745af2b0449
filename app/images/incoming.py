"""What an upload brings: files, each with the label, split and group that it is sent under."""

from collections.abc import Callable
from dataclasses import dataclass

from app.core.tables import Split
from models.errors import ShotlineError


@dataclass(frozen=True)
class IncomingFile:
    """One file of an upload, not yet looked at.

    Attributes:
        name: what the sender calls it; shown to people, never used as a path.
        label: the class it is sent under.
        split: the side it is sent to.
        group: the part it shows; None where it stands for itself.
        size: bytes as stated.
        read: returns at most that many bytes; raises BadImage where they cannot be had.
        problem: why it is rejected unread.
    """

    name: str
    label: str
    split: Split
    group: str | None
    size: int
    read: Callable[[int], bytes]
    problem: ShotlineError | None = None
