"""Request bodies that may be large: spooled once to a file without a name, parts are slices of it.

Starlette's own form parser keeps every small file in memory and every larger one open; thousands
of photographs in one upload would exhaust either.
"""

import mmap
import tempfile
from collections.abc import Callable
from email.message import Message
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple, cast

import anyio
from anyio import CapacityLimiter
from starlette.requests import Request

from app.core.errors import BadRequest
from app.core.slices import Slice
from app.core.spare import MemoryFile, SpareMemory
from models.errors import DISK_FULL, storage_errors

_CHUNK = 1 << 20
_HEADER_BYTES = 16 * 1024
_MAX_PARTS = 20_000
# All plain fields of a body together; a field alone has at most _CHUNK.
_FIELD_BYTES = 4 << 20


class Part(NamedTuple):
    """One part of a multipart body; `file_name` is None for a plain field."""

    name: str
    file_name: str | None
    content_type: str
    data: Slice

    def text(self) -> str:
        """Return a plain field's value.

        Raises:
            BadRequest: not UTF-8, or far too long for a field.
        """
        if self.data.length > _CHUNK:
            raise BadRequest(
                f"The field {self.name!r} has {self.data.length} bytes; at most {_CHUNK} are"
                " allowed.",
                fix="Send it as a file, with a file name, if it is one.",
                field=self.name,
            )
        try:
            return self.data.guarded(_CHUNK).read().decode()
        except UnicodeDecodeError:
            raise BadRequest(
                f"The field {self.name!r} is not UTF-8.", fix="Send it in UTF-8.", field=self.name
            ) from None


class SpooledBody:
    """A request's body in a file that vanishes with it."""

    def __init__(self, sink: "_Sink", size: int) -> None:
        self._sink = sink
        self.size = size

    @property
    def _file(self) -> IO[bytes]:
        return self._sink.file

    def whole(self) -> Slice:
        """Return the whole body."""
        return self.slice(0, self.size)

    def slice(self, start: int, length: int) -> Slice:
        """Return a part of the body."""
        return Slice(self._file.fileno(), start, length)

    def close(self) -> None:
        """Give the disk space back."""
        self._sink.close()

    def parts(self, content_type: str) -> list[Part]:
        """Return the parts of a multipart body in order (RFC 2046).

        Raises:
            BadRequest: no boundary, a part without a name, too many parts, plain fields that are
                too long together, or cut short.
        """
        boundary = _options(content_type).get_param("boundary")
        if not isinstance(boundary, str) or not 0 < len(boundary) <= 200:
            raise BadRequest(
                f"The Content-Type {content_type[:80]!r} names no boundary.",
                fix="Let your HTTP client build the multipart body and its Content-Type.",
                field="Content-Type",
            )
        if self.size == 0:
            raise _cut_short()
        with mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ) as body:
            return self._parts(body, b"--" + boundary.encode("latin-1", "replace"))

    def _parts(self, body: mmap.mmap, delimiter: bytes) -> list[Part]:
        parts: list[Part] = []
        plain = 0
        position = _after_delimiter(body, delimiter, 0)
        while position is not None:
            if len(parts) == _MAX_PARTS:
                raise BadRequest(
                    f"The body has more than {_MAX_PARTS} parts.",
                    fix="Send fewer files at a time, or an archive.",
                )
            head_end = body.find(b"\r\n\r\n", position - 2, position + _HEADER_BYTES)
            if head_end < 0:
                raise _cut_short()
            data = head_end + 4
            end = _delimiter_at(body, b"\r\n" + delimiter, data)
            part = self.slice(data, end - data)
            parts.append(_part(body[position:head_end], part))
            plain += 0 if parts[-1].file_name is not None else part.length
            if plain > _FIELD_BYTES:
                raise _fields_too_long()
            position = _after_delimiter(body, b"\r\n" + delimiter, end)
        return parts


async def spool(
    request: Request,
    folder: Path,
    threads: CapacityLimiter | None = None,
    *,
    room: Callable[[int], None] | None = None,
    spare: SpareMemory | None = None,
) -> SpooledBody:
    """Write the request's body to a file without a name in `folder`.

    Args:
        request: its body is not read yet.
        folder: on the disk that is to hold it.
        threads: the file is written by these; by default by those of all requests.
        room: raises where that many bytes more must not be written; asked before each portion.
        spare: takes the body where the disk is full; without it that is an error.

    Raises:
        TooLarge: from the middleware that counts the bytes.
        StorageFull: the disk fills.
    """
    run = partial(anyio.to_thread.run_sync, limiter=threads)
    size, waiting = 0, bytearray()
    with storage_errors(folder / "upload"):
        sink = _Sink(folder, room, spare)
        try:
            # What is stated is on the disk twice for a while: as it came, and as what it holds.
            await run(sink.open, 2 * int(request.headers.get("content-length", "0")))
            async for chunk in request.stream():
                waiting += chunk
                size += len(chunk)
                if len(waiting) >= _CHUNK:
                    await run(sink.write, bytes(waiting))
                    waiting.clear()
            await run(sink.write, bytes(waiting))
        except BaseException:
            sink.close()
            raise
    return SpooledBody(sink, size)


class _Sink:
    """Where a body goes: a file without a name, in memory where the disk is full."""

    def __init__(
        self, folder: Path, room: Callable[[int], None] | None, spare: SpareMemory | None
    ) -> None:
        self._folder, self._room, self._spare = folder, room, spare
        self._disk: IO[bytes] | None = None
        self._memory: MemoryFile | None = None

    @property
    def file(self) -> IO[bytes]:
        """The open file."""
        file = self._disk if self._memory is None else self._memory.file
        assert file is not None  # noqa: S101 - opened by `spool`
        return file

    def open(self, stated: int) -> None:
        """Open the file, for about `stated` bytes."""
        if self._room is not None:
            self._room(stated)
        try:
            self._disk = _open(self._folder)
        except OSError as error:
            self._move(error, 0)

    def write(self, data: bytes) -> None:
        """Append `data`."""
        if self._room is not None:
            self._room(len(data))
        if self._memory is None:
            written = self.file.tell()
            try:
                _write(self.file, data)
            except OSError as error:
                self._move(error, written)
            else:
                return
        assert self._memory is not None  # noqa: S101 - moved there, else that raised
        self._memory.write(data)

    def close(self) -> None:
        """Give back what the body takes."""
        for file in (self._disk, self._memory):
            if file is not None:
                file.close()

    def _move(self, error: OSError, size: int) -> None:
        """Go on in memory, with the first `size` bytes; raise where that is not allowed."""
        if self._spare is None or error.errno not in DISK_FULL:
            raise error
        self._memory = self._spare.file()
        if self._disk is not None:
            whole = Slice(self._disk.fileno(), 0, size)
            while chunk := whole.read(_CHUNK):
                self._memory.write(chunk)
            self._disk.close()


def _open(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _write(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _delimiter_at(body: mmap.mmap, delimiter: bytes, start: int) -> int:
    """Return where a whole delimiter line begins: data may hold what only begins like one."""
    found = body.find(delimiter, start)
    while found >= 0:
        after = found + len(delimiter)
        if body[after : after + 2] in (b"\r\n", b"--"):
            return found
        found = body.find(delimiter, found + 1)
    raise _cut_short()


def _after_delimiter(body: mmap.mmap, delimiter: bytes, start: int) -> int | None:
    """Return where the next part's headers begin, None after the last part."""
    after = _delimiter_at(body, delimiter, start) + len(delimiter)
    return None if body[after : after + 2] == b"--" else after + 2


def _part(head: bytes, data: Slice) -> Part:
    headers = Message()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        header, _, value = line.partition(":")
        if value and header.strip().lower() in ("content-disposition", "content-type"):
            headers[header.strip()] = value.strip()
    disposition = _options(headers.get("content-disposition", ""))
    name = _parameter(disposition, "name")
    if name is None:
        raise BadRequest(
            "A part of the body has no name.",
            fix="Send form fields: files, label, archive, …",
        )
    kind = headers.get("content-type", "application/octet-stream")
    return Part(name, _parameter(disposition, "filename"), kind, data)


def _options(value: str) -> Message:
    """Return a header value such as `form-data; name="x"`, its parameters readable."""
    message = Message()
    message["Content-Type"] = f"x/{value}" if "/" not in value.split(";", maxsplit=1)[0] else value
    return message


def _parameter(message: Message, name: str) -> str | None:
    """Return a parameter; `name*` (RFC 2231) where it is there, for what it says is exact.

    .NET sends both, and in the plain one a MIME word (`=?utf-8?B?…?=`) that no form calls for.
    """
    plain: str | None = None
    # typeshed knows nothing of the tuples that RFC 2231 leads to.
    parameters = cast("list[tuple[str, str | tuple[str, str, str]]]", message.get_params([]))
    for found, value in parameters:
        if found == name and isinstance(value, tuple):
            charset, _, text = value
            return _decoded(text, charset or "utf-8")
        if found == name and isinstance(value, str):
            plain = plain or value
    return plain


def _decoded(text: str, charset: str) -> str:
    try:
        return text.encode("latin-1", "replace").decode(charset, "replace")
    except LookupError:
        raise BadRequest(
            f"A file name is in the character set {charset[:40]!r}, which is not known.",
            fix="Send it in UTF-8.",
        ) from None


def _fields_too_long() -> BadRequest:
    return BadRequest(
        f"The plain fields of the body have more than {_FIELD_BYTES} bytes together.",
        fix="Send photographs as files, each with a file name.",
    )


def _cut_short() -> BadRequest:
    return BadRequest(
        "The multipart body is cut short or not one.",
        fix="Send it again; let your HTTP client build it.",
        field="body",
    )
