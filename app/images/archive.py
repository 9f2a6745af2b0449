"""Archives of labelled photographs: what the folders in them say."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from app.core.archive import ArchivedFile, open_files
from app.core.settings import LimitSettings
from app.core.slices import Slice
from app.core.tables import Split
from app.images.incoming import IncomingFile
from models.errors import BadImage


@contextmanager
def open_archive(
    source: Slice,
    limits: LimitSettings,
    scratch: Path,
    *,
    split: Split,
    groups: Mapping[str, str],
) -> Iterator[list[IncomingFile]]:
    """Yield the files of a zip, tar or tar.gz; they can be read until the block ends.

    The class is the folder that holds the file; `train` or `holdout` above it says the split.

    Args:
        source: the archive.
        limits: on files, bytes and ratio.
        scratch: folder for the tar inside a tar.gz.
        split: of files that no folder says another split for.
        groups: the group of an image, by its path in the archive.

    Raises:
        BadUpload, TooLarge, StorageFull: see `open_files`.
    """
    with open_files(source, limits, scratch) as files:
        yield [_incoming(file, split, groups) for file in files]


def _incoming(file: ArchivedFile, split: Split, groups: Mapping[str, str]) -> IncomingFile:
    path = PurePosixPath(file.name)
    problem = file.problem
    if problem is None and len(path.parts) < 2:
        problem = BadImage(
            "The file is in no folder, so that its class is not known.",
            fix="Put it into a folder named after its class.",
        )
    return IncomingFile(
        name=file.name,
        label=path.parent.name,
        split=_split(path.parts[:-2]) or split,
        group=groups.get(file.name),
        size=file.size,
        read=file.read,
        problem=problem,
    )


def _split(folders: Iterable[str]) -> Split | None:
    found: Split | None = None
    for folder in folders:
        if folder.casefold() == "train":
            found = "train"
        elif folder.casefold() == "holdout":
            found = "holdout"
    return found
