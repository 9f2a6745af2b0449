"""A zip with one folder of photographs per class, read in place: nothing is ever unpacked."""

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.bench.listing import ListedImage, Listing
from models.errors import BadDataset
from models.litter import is_litter
from models.names import printable

_MAX_FILES = 200_000
_MAX_IMAGE_BYTES = 200 << 20
# Photographs do not pack this tightly; below so many bytes it does not matter.
_MAX_RATIO, _HARMLESS_BYTES = 100, 64 << 20
_ENCRYPTED, _UTF8 = 0x1, 0x800
_ABSOLUTE = re.compile(r"/|[A-Za-z]:")


@dataclass(frozen=True)
class ZipMember:
    """Reads one file of an archive; can be sent to another process."""

    archive: Path
    index: int

    def __call__(self) -> bytes:
        """Return its bytes.

        Raises:
            BadDataset: damaged, or longer than the archive says.
        """
        try:
            with zipfile.ZipFile(self.archive) as archive:
                info = archive.infolist()[self.index]
                with archive.open(info) as file:
                    data = file.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
            raise _damaged(self.archive, error) from error
        if len(data) > info.file_size:
            raise _damaged(self.archive, f"{printable(info.filename)!r} is longer than it says")
        return data


def list_zip(path: Path) -> Listing:
    """List the photographs of a zip; the class is the folder that holds the file.

    Raises:
        BadDataset: no zip, damaged, encrypted, with a name that points outside of it, with a file
            in no folder, too large, or packed so tightly that it can only be a bomb.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise _damaged(path, error) from error
    _check_sizes(path, infos)
    images = []
    for index, info in enumerate(infos):
        name = _name(info)
        _check_name(path, name)
        place = PurePosixPath(name.replace("\\", "/"))
        if info.is_dir() or any(map(is_litter, place.parts)):
            continue
        if len(place.parts) < 2:
            raise _refused(path, f"{printable(name)!r} is in no folder, so its class is not known")
        images.append(ListedImage(str(place), place.parent.name, ZipMember(path, index)))
    _check_places(path, images)
    return Listing(path, sorted({image.label for image in images}), images)


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    size, packed = sum(info.file_size for info in infos), path.stat().st_size
    if len(infos) > _MAX_FILES:
        raise _refused(path, f"it holds {len(infos)} files; at most {_MAX_FILES} are read")
    if size > _HARMLESS_BYTES and size > packed * _MAX_RATIO:
        raise _refused(path, f"it unpacks {packed} bytes to {size}, as no photographs do")
    for info in infos:
        if info.flag_bits & _ENCRYPTED:
            raise _refused(path, f"{printable(info.filename)!r} is encrypted")
        if info.file_size > _MAX_IMAGE_BYTES:
            raise _refused(path, f"{printable(info.filename)!r} has {info.file_size} bytes")


def _check_name(path: Path, name: str) -> None:
    plain = name.replace("\\", "/")
    if _ABSOLUTE.match(plain) or ".." in plain.split("/") or "\0" in plain:
        raise _refused(path, f"{printable(name)!r} points outside of it")


def _check_places(path: Path, images: list[ListedImage]) -> None:
    """Refuse two folders of one name in different places, which may be two classes."""
    first: dict[str, str] = {}
    for image in images:
        place = str(PurePosixPath(image.name).parent)
        if first.setdefault(image.label, place) != place:
            raise BadDataset(
                f"{path} has two folders named {image.label!r} ({first[image.label]} and {place}).",
                fix="Pack one folder per class, side by side.",
                field=image.label,
            )


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name, read as UTF-8 where it is although the archive does not say so."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _refused(path: Path, why: str) -> BadDataset:
    return BadDataset(
        f"The archive {path} is not read: {why}.",
        fix="Pack one folder per class, with photographs alone, without a password.",
        field="folder",
    )


def _damaged(path: Path, error: object) -> BadDataset:
    return BadDataset(
        f"The archive {path} is damaged or cut short: {error}.",
        fix="Pack it again.",
        field="folder",
    )
