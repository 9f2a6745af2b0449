"""From the body of a request to the images of a batch: stored, not looked at yet."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.core.archive import open_files
from app.core.disk import Puts
from app.core.errors import BadRequest
from app.core.jobs import failure_of
from app.core.settings import LimitSettings
from app.images.form import Sent, check_count, sent_file
from app.images.incoming import SentFile
from models.errors import BadInput, ShotlineError
from models.names import printable


def open_sent(sent: Sent, stack: ExitStack, limits: LimitSettings, scratch: Path) -> list[SentFile]:
    """Return the files; they can be read until `stack` is closed.

    Raises:
        BadUpload, TooLarge, StorageFull: see `app.core.archive.open_files`.
        BadRequest: no files.
        BadInput: a field that is no file.
    """
    for name in sent.fields or ():
        raise BadInput(
            f"There is no field {name[:80]!r}.",
            fix="Send files or an archive; model and top_k belong into the address.",
            field=name[:80],
        )
    if sent.archive is not None:
        found = stack.enter_context(open_files(sent.archive, limits, scratch))
        return [
            SentFile(name=one.name, size=one.size, read=one.read, problem=one.problem)
            for one in found
        ]
    if not sent.parts:
        raise BadRequest(
            "The batch has no files.",
            fix="Send photographs in the field 'files', or an archive in 'archive'.",
            field="files",
        )
    check_count(len(sent.parts), limits)
    return [sent_file(part) for part in sent.parts]


def store_images(
    files: Sequence[SentFile], storage: Puts, limits: LimitSettings
) -> list[dict[str, Any]]:
    """Store each file's bytes; return the rows of the batch's images in the order of the files.

    A file that cannot be had is not refused: its problem stands in the result.

    Raises:
        StorageFull: no space is left.
    """
    return [_store(place, file, storage, limits) for place, file in enumerate(files)]


def _store(place: int, file: SentFile, storage: Puts, limits: LimitSettings) -> dict[str, Any]:
    row = {"position": place, "name": printable(file.name), "sha256": None, "problem": None}
    try:
        data = file.content(limits.file_bytes)
    except ShotlineError as error:
        return row | {"problem": dict(failure_of(error))}
    return row | {"sha256": storage.put(data)}
