"""The bodies that a prediction comes in: a raw image, multipart, JSON with base64, an archive."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio
from anyio import CapacityLimiter
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import Request

from app.core.archive import ArchivedFile, open_files
from app.core.clock import to_utc
from app.core.errors import BadRequest, TooLarge, UnsupportedType
from app.core.media_types import ARCHIVE_TYPES
from app.core.settings import LimitSettings
from app.core.slices import Slice
from app.core.spare import SpareMemory
from app.http.spool import Part, SpooledBody, spool
from app.predictions.incoming import NO_ORIGIN, IncomingImage, Origin
from app.predictions.schemas import OriginIn, PredictIn
from models.errors import BadImage, BadInput
from models.names import TEXT_LENGTH, clean_text, printable

# The texts that may come with an image have as many characters, each of which may be a comma.
_MARKS_PER_IMAGE = 700
_FIELDS = ("image_id", "part_id", "station", "captured_at")


@dataclass(frozen=True)
class Intake:
    """What a request asks.

    Attributes:
        images: in their order.
        single: it asked for one image, not for a list.
        archive: they came in an archive, which is answered in lines unless JSON is asked for.
        stack: what the images are read from.
    """

    images: Sequence[IncomingImage]
    single: bool
    archive: bool = False
    stack: ExitStack = field(default_factory=ExitStack)

    def fingerprint(self, *extra: object) -> str:
        """Return what stands for the content, whatever boundary a multipart body chose."""
        hasher = hashlib.sha256(repr((self.single, extra)).encode())
        for image in self.images:
            try:
                digest = hashlib.sha256(image.read()).hexdigest()
            except BadImage as error:
                digest = str(error)
            hasher.update(repr((image.origin, digest)).encode())
        return hasher.hexdigest()


async def read_intake(
    request: Request,
    defaults: Origin,
    limits: LimitSettings,
    scratch: Path,
    threads: CapacityLimiter,
    spare: SpareMemory | None = None,
) -> Intake:
    """Read a request's body.

    Args:
        request: its body is not read yet.
        defaults: what the headers say of all its images.
        limits: on bytes and images.
        scratch: where a multipart body or an archive is spooled to.
        threads: what reads it takes a thread of these.
        spare: holds it where the disk is full.

    Raises:
        BadRequest, BadInput, RequestValidationError: a body that cannot be read.
        TooLarge: more bytes or images than allowed, or an archive that can only be a bomb.
        UnsupportedType: another content type.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.split(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        data = await _read_raw(request, limits.file_bytes)
        return Intake([IncomingImage(defaults, lambda: data)], single=True)
    if kind == "multipart/form-data":
        return await _read_form(request, content_type, defaults, limits, scratch, threads, spare)
    if kind in ARCHIVE_TYPES:
        return await _read_archive(request, defaults, limits, scratch, threads, spare)
    if kind == "application/json":
        data = await request.body()
        return await anyio.to_thread.run_sync(_read_json, data, defaults, limits, limiter=threads)
    raise UnsupportedType(
        f"The Content-Type {content_type[:80]!r} is none of image/*, multipart/form-data,"
        " application/json and application/zip.",
        fix="Send the image's bytes as image/jpeg or image/png, a form with files, JSON with"
        " base64, or a zip or tar.",
        field="Content-Type",
    )


async def _read_raw(request: Request, limit: int) -> bytes:
    stated = int(request.headers.get("content-length", "0"))
    if stated > limit:
        raise _too_long(stated, limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_long(size, limit)
    return b"".join(chunks)  # of most images there is one, which is not copied


def make_origin(
    image_id: str | None = None,
    part_id: str | None = None,
    station: str | None = None,
    captured_at: str | datetime | None = None,
    *,
    defaults: Origin = NO_ORIGIN,
) -> Origin:
    """Return what is said of an image, cleaned, `defaults` for what is not.

    Raises:
        BadName: text with control characters, or too long.
        BadInput: a time that is none, or without a time zone.
    """
    return Origin(
        image_id=_text(image_id, "image_id") or defaults.image_id,
        part_id=_text(part_id, "part_id") or defaults.part_id,
        station=_text(station, "station") or defaults.station,
        captured_at=_time(captured_at) or defaults.captured_at,
    )


async def _read_form(
    request: Request,
    content_type: str,
    defaults: Origin,
    limits: LimitSettings,
    scratch: Path,
    threads: CapacityLimiter,
    spare: SpareMemory | None,
) -> Intake:
    stack = ExitStack()
    try:
        body = await spool(request, scratch, threads, spare=spare)
        stack.callback(body.close)
        images = await anyio.to_thread.run_sync(
            _form_images, body, content_type, defaults, limits, limiter=threads
        )
    except BaseException:
        stack.close()
        raise
    return Intake(images, single=len(images) == 1, stack=stack)


def _form_images(
    body: SpooledBody, content_type: str, defaults: Origin, limits: LimitSettings
) -> list[IncomingImage]:
    parts = body.parts(content_type)
    files = [part for part in parts if part.file_name is not None]
    if not files:
        raise BadRequest(
            "The form has no file.",
            fix="Send each image as a file, with a file name, in a field called image.",
            field="image",
        )
    _check_count(len(files), limits)
    said = {name: [p.text() for p in parts if p.name == name] for name in _FIELDS}
    common = make_origin(
        **{name: said[name][0] for name in _FIELDS if len(said[name]) == 1}, defaults=defaults
    )
    for name in _FIELDS:
        if len(said[name]) not in (0, 1, len(files)):
            raise BadInput(
                f"The form has {len(said[name])} fields {name!r} for {len(files)} files.",
                fix="Send one for all, or one for each file in the order of the files.",
                field=name,
            )
    return [
        IncomingImage(
            _origin_of(part, place, said, common, len(files)),
            partial(_slice_within, part.data, limits.file_bytes),
        )
        for place, part in enumerate(files)
    ]


def _origin_of(
    part: Part, place: int, said: dict[str, list[str]], common: Origin, files: int
) -> Origin:
    if files == 1:
        return common
    own = {name: values[place] for name, values in said.items() if len(values) == files}
    if not said["image_id"]:
        own["image_id"] = part.file_name or ""
    return make_origin(**own, defaults=common)


async def _read_archive(
    request: Request,
    defaults: Origin,
    limits: LimitSettings,
    scratch: Path,
    threads: CapacityLimiter,
    spare: SpareMemory | None,
) -> Intake:
    stack = ExitStack()
    try:
        body = await spool(request, scratch, threads, spare=spare)
        stack.callback(body.close)
        opened = open_files(body.whole(), limits, scratch)
        files = await anyio.to_thread.run_sync(stack.enter_context, opened, limiter=threads)
        _check_count(len(files), limits)
    except BaseException:
        stack.close()
        raise
    images = [
        IncomingImage(
            replace(defaults, image_id=_id_of(file.name)),
            partial(_unpacked, file, limits.file_bytes),
        )
        for file in files
    ]
    return Intake(images, single=False, archive=True, stack=stack)


def _id_of(path: str) -> str:
    """Return a path in an archive as an image's id; of a long one the end, which tells more."""
    shown = printable(path, len(path)).strip() or "(no name)"
    return shown if len(shown) <= TEXT_LENGTH else "…" + shown[1 - TEXT_LENGTH :]


def _unpacked(file: ArchivedFile, limit: int) -> bytes:
    if file.problem is not None:
        raise file.problem
    if file.size > limit:
        raise _too_long(file.size, limit)
    return file.read(limit)


def _read_json(data: bytes, defaults: Origin, limits: LimitSettings) -> Intake:
    _check_marks(data, limits)
    try:
        asked = PredictIn.model_validate_json(data)
    except ValidationError as error:
        found = [entry | {"loc": ("body", *entry["loc"])} for entry in error.errors()]
        raise RequestValidationError(found) from error
    common = _origin_in(asked, defaults)
    if asked.images is None:
        read = partial(_from_base64, asked.image or "", limits.file_bytes)
        return Intake([IncomingImage(common, read)], single=True)
    _check_count(len(asked.images), limits)
    images = [
        IncomingImage(
            _origin_in(entry, common), partial(_from_base64, entry.image, limits.file_bytes)
        )
        for entry in asked.images
    ]
    return Intake(images, single=False)


def _check_marks(data: bytes, limits: LimitSettings) -> None:
    """Refuse JSON of countless small values, each of which takes a hundred bytes once parsed."""
    allowed = _MARKS_PER_IMAGE * limits.predict_images
    found = sum(data.count(mark) for mark in (b"{", b"[", b","))
    if found > allowed:
        raise TooLarge(
            f"The JSON has more than {allowed} values; at most {limits.predict_images} images are"
            " allowed.",
            fix="Send fewer images at a time.",
            field="images",
        )


def _origin_in(said: OriginIn, defaults: Origin) -> Origin:
    return make_origin(
        said.image_id, said.part_id, said.station, said.captured_at, defaults=defaults
    )


def _check_count(count: int, limits: LimitSettings) -> None:
    if count > limits.predict_images:
        raise TooLarge(
            f"The request has {count} images; at most {limits.predict_images} are allowed.",
            fix="Send fewer at a time.",
            field="images",
        )


def _from_base64(text: str, limit: int) -> bytes:
    try:
        return _within(base64.b64decode(text, validate=True), limit)
    except (binascii.Error, ValueError):
        raise BadImage(
            f"The image is not base64: it starts with {text[:12]!r}.",
            fix="Encode the file's bytes as base64 (RFC 4648), without line breaks.",
            field="image",
        ) from None


def _slice_within(data: Slice, limit: int) -> bytes:
    if data.length > limit:
        raise _too_long(data.length, limit)
    return data.guarded(limit).read()


def _within(data: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise _too_long(len(data), limit)
    return data


def _too_long(size: int, limit: int) -> BadImage:
    return BadImage(
        f"The image has {size} bytes; at most {limit} are allowed.",
        fix="Save it with more compression, or cut it to the region of interest.",
    )


def _text(value: str | None, name: str) -> str | None:
    return clean_text(value, name) if value else None


def _time(value: str | datetime | None) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if moment.tzinfo is not None:
            return to_utc(moment)
    except ValueError:
        pass
    raise BadInput(
        f"captured_at {str(value)[:40]!r} is not a time with a time zone, or of no year from 1 to"
        " 9999.",
        fix="Write it as in 2026-11-24T08:15:30.250Z.",
        field="captured_at",
    )
