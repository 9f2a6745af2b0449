"""What a running batch leaves: parts of its result, each with the progress that it makes."""

from typing import TypedDict

from sqlalchemy.orm import Session

from app.core.jobs import BATCHES, Lease, Standing
from app.core.tables import BatchPart


class Progress(TypedDict):
    """How far a batch is.

    Attributes:
        done: images that are decided on, or that have a problem in their place.
        total: images of the batch.
        failed: those with a problem.
        images_per_second: of the worker that has it.
        seconds_left: from that speed.
    """

    done: int
    total: int
    failed: int
    images_per_second: float | None
    seconds_left: float | None


def no_progress(total: int) -> Progress:
    """Return the progress of a batch that nobody has begun with."""
    return Progress(done=0, total=total, failed=0, images_per_second=None, seconds_left=None)


def note_part(session: Session, lease: Lease, part: BatchPart, progress: Progress) -> Standing:
    """Record a part and the progress, where the lease still holds: both, or neither.

    A commit whose answer was lost with the connection may have happened: it may be tried again.
    What came before no longer counts against the batch: it got further.
    """
    standing = BATCHES.note(session, lease, progress=dict(progress), losses=0)
    if standing != "lost" and session.get(BatchPart, (part.batch_id, part.position)) is None:
        session.add(part)
        session.flush()
    return standing
