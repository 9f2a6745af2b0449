"""What an upload brings: files, and the label, split and group that each is sent under."""

from collections.abc import Callable
from dataclasses import dataclass

from app.core.tables import Split
from models.errors import BadImage, ShotlineError


@dataclass(frozen=True, kw_only=True)
class SentFile:
    """One file that was sent, not yet looked at.

    Attributes:
        name: what the sender calls it; shown to people, never used as a path.
        size: bytes as stated.
        read: returns at most that many bytes; raises BadImage where they cannot be had.
        problem: why it is rejected unread.
    """

    name: str
    size: int
    read: Callable[[int], bytes]
    problem: ShotlineError | None = None

    def content(self, limit: int) -> bytes:
        """Return the file's bytes.

        Raises:
            ShotlineError: `problem`.
            BadImage: more than `limit` bytes, or they cannot be had.
        """
        if self.problem is not None:
            raise self.problem
        data = self.read(limit + 1) if self.size <= limit else None
        if data is None or len(data) > limit:
            raise BadImage(
                f"The file has {max(self.size, limit + 1)} bytes; at most {limit} are allowed.",
                fix="Save it with more compression, or cut it to the region of interest.",
            )
        return data


@dataclass(frozen=True, kw_only=True)
class IncomingFile(SentFile):
    """One file of an upload of labelled images.

    Attributes:
        label: the class it is sent under.
        split: the side it is sent to.
        group: the part it shows; None where it stands for itself.
    """

    label: str
    split: Split
    group: str | None
