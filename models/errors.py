"""The one error tree of Shotline.

    ShotlineError
    ├── BadInput                what the user gave is wrong
    │   ├── BadImage            not an image, truncated, empty, too many pixels
    │   ├── BadName             a class name that cannot be used
    │   ├── BadDataset          classes or images that cannot be tuned on
    │   ├── BadRecipe           a hyperparameter out of range, or one that the backbone cannot serve
    │   └── BadView             a region of interest or resize mode that cannot be applied
    ├── Refused                 two things do not belong together, or cannot be trusted
    │   ├── BackboneUnavailable not on this machine, or of a kind that prompts cannot be tuned for
    │   │   └── DeviceUnavailable   the device that it should run on is not there, or lost
    │   ├── DamagedArtifact     bytes that are no whole artifact or checkpoint
    │   ├── ArtifactMismatch    an artifact of another backbone or format
    │   └── CheckpointMismatch  a checkpoint of another recipe, snapshot or seed
    ├── OutOfMemory             more than the device's memory holds
    ├── StorageFull             no space left on the device
    ├── StorageUnusable         a file that the system will not let be read or written
    └── Cancelled               someone asked for the work to stop

The service adds its own leaves in ``app.core.errors``; HTTP statuses are chosen in ``app.http``.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

ImageFault = Literal["empty", "foreign", "large", "form", "damaged"]


class ShotlineError(Exception):
    """What went wrong in a sentence that names the value at fault, and what to do about it.

    Args:
        problem: a full sentence with the value that was wrong and what was expected.
        fix: a full sentence that says what to do.
        field: the input that is at fault, where it has a name.
    """

    def __init__(self, problem: str, *, fix: str, field: str | None = None) -> None:
        super().__init__(f"{problem} {fix}")
        self.problem = problem
        self.fix = fix
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made anew from its text alone, in the process it is sent to.
        return _restore, (type(self), self.problem, self.fix, self.field), self.__dict__


def _restore(
    kind: "type[ShotlineError]", problem: str, fix: str, field: str | None
) -> "ShotlineError":
    error = kind.__new__(kind)
    ShotlineError.__init__(error, problem, fix=fix, field=field)
    return error


class BadInput(ShotlineError):
    """What the user gave is wrong."""


class BadImage(BadInput):
    """Bytes that cannot be used as an image.

    Args:
        problem, fix, field: as of every error.
        fault: which of the faults it is, for who says it in other words.
    """

    def __init__(
        self, problem: str, *, fix: str, field: str | None = None, fault: ImageFault = "damaged"
    ) -> None:
        super().__init__(problem, fix=fix, field=field)
        self.fault: ImageFault = fault


class BadName(BadInput):
    """A class name that cannot be used."""


class BadDataset(BadInput):
    """Classes or images that cannot be tuned on."""


class BadRecipe(BadInput):
    """A hyperparameter out of range, or one that the backbone cannot serve."""


class BadView(BadInput):
    """A region of interest or resize mode that cannot be applied."""


class Refused(ShotlineError):
    """Two things that do not belong together, or one that cannot be trusted."""


class BackboneUnavailable(Refused):
    """The backbone is not on this machine, or prompts cannot be tuned for it."""


class DeviceUnavailable(BackboneUnavailable):
    """The device that the backbone should run on is not there, or does not compute any more."""


class DamagedArtifact(Refused):
    """Bytes that are no whole artifact or checkpoint."""


class ArtifactMismatch(Refused):
    """An artifact of another backbone or format."""


class CheckpointMismatch(Refused):
    """A checkpoint of another recipe, snapshot or seed."""


class OutOfMemory(ShotlineError):
    """More than the device's memory holds, in however small pieces."""


class StorageFull(ShotlineError):
    """No space is left where something had to be written."""


class StorageUnusable(ShotlineError):
    """A file that the system will not let be read or written."""


class Cancelled(ShotlineError):
    """Someone asked for the work to stop."""

    def __init__(self, problem: str = "The tuning was cancelled.") -> None:
        super().__init__(problem, fix="Start it again when you want its result.")


# What the system says where no space is left, or none of a quota.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" while writing `path` into `StorageFull`."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise StorageFull(
            f"The disk is full: {path} could not be written.",
            fix=f"Free space on the volume that holds {path.parent}, then try again.",
        ) from error


@contextmanager
def file_errors(path: Path, action: Literal["read", "written"]) -> Iterator[None]:
    """Turn whatever the system says against reading or writing `path` into an error of the tree."""
    try:
        with storage_errors(path):
            yield
    except OSError as error:
        raise StorageUnusable(
            f"{path} cannot be {action}: {error.strerror or error}.",
            fix="Check the path, its permissions, and the disk that holds it.",
        ) from error
