"""The body of an upload, as options and files."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from app.core.errors import BadRequest, TooLarge, UnsupportedType
from app.core.media_types import ARCHIVE_TYPES
from app.core.settings import LimitSettings
from app.core.slices import Slice
from app.core.tables import Split
from app.http.spool import Part, SpooledBody
from app.images.archive import open_archive
from app.images.incoming import IncomingFile, SentFile
from models.errors import BadInput
from models.names import clean_text

_FIELDS = {"label", "split", "group", "groups", "ok"}


@dataclass(frozen=True)
class UploadOptions:
    """What an upload says of all its files.

    Attributes:
        label: their class; None for an archive, whose folders say it.
        split: their side of the split.
        group: the part that all of them show.
        groups: the group of each, by name.
        ok: classes to be made with the role `ok`.
    """

    label: str | None = None
    split: Split = "train"
    group: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    ok: Sequence[str] = ()


@dataclass(frozen=True)
class Upload:
    """An upload as it was sent: an archive, or files of one class."""

    options: UploadOptions
    archive: Slice | None = None
    parts: Sequence[Part] = ()

    def open(self, stack: ExitStack, limits: LimitSettings, scratch: Path) -> list[IncomingFile]:
        """Return the files; they can be read until `stack` is closed.

        Raises:
            BadUpload, TooLarge: see `open_archive`.
            BadRequest: no files, or no label.
            BadName: a group that is no name.
        """
        options = self.options
        if self.archive is not None:
            return stack.enter_context(
                open_archive(
                    self.archive, limits, scratch, split=options.split, groups=options.groups
                )
            )
        if not self.parts:
            raise BadRequest(
                "The upload has no files.",
                fix="Send photographs in the field 'files', or an archive in 'archive'.",
                field="files",
            )
        if options.label is None:
            raise BadRequest(
                "The upload says no label for its files.",
                fix="Send the class's name in the field 'label'.",
                field="label",
            )
        check_count(len(self.parts), limits)
        return [self._file(part, options.label) for part in self.parts]

    def _file(self, part: Part, label: str) -> IncomingFile:
        name = part.file_name or part.name
        return IncomingFile(
            name=name,
            label=label,
            split=self.options.split,
            group=self.options.groups.get(name, self.options.group),
            size=part.data.length,
            read=partial(_read, part.data),
        )


@dataclass(frozen=True)
class Sent:
    """A body as it was sent: an archive, or files; and the plain fields of a form."""

    archive: Slice | None = None
    parts: Sequence[Part] = ()
    fields: Mapping[str, list[str]] | None = None


def read_sent(body: SpooledBody, content_type: str) -> Sent:
    """Return what is in `body`; a body that is the archive itself has no fields.

    Raises:
        UnsupportedType: neither multipart nor an archive.
        BadRequest: a body that cannot be read.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ARCHIVE_TYPES:
        return Sent(archive=body.whole())
    if kind != "multipart/form-data":
        raise UnsupportedType(
            f"The Content-Type is {kind!r}; multipart/form-data or an archive is expected.",
            fix="Send files as multipart/form-data, or a zip as application/zip.",
            field="Content-Type",
        )
    parts = body.parts(content_type)
    fields: dict[str, list[str]] = {}
    for part in parts:
        if part.file_name is None:
            fields.setdefault(part.name, []).append(part.text())
    files = [part for part in parts if part.file_name is not None]
    archives = [part for part in files if part.name == "archive"]
    if len(archives) > 1 or (archives and len(files) > 1):
        raise BadRequest(
            f"The upload has {len(archives)} archives and {len(files) - len(archives)} files.",
            fix="Send one archive, or files, at a time.",
            field="archive",
        )
    return Sent(archives[0].data if archives else None, files, fields)


def sent_file(part: Part) -> SentFile:
    """Return a part of a form as a file."""
    return SentFile(
        name=part.file_name or part.name, size=part.data.length, read=partial(_read, part.data)
    )


def check_count(count: int, limits: LimitSettings) -> None:
    """Raise `TooLarge` for more files than one upload may have."""
    if count > limits.upload_files:
        raise TooLarge(
            f"The upload has {count} files; at most {limits.upload_files} are allowed.",
            fix="Send them in several uploads.",
            field="files",
        )


def _read(data: Slice, limit: int) -> bytes:
    data.seek(0)
    return data.read(limit)


def read_upload(body: SpooledBody, content_type: str, query: Mapping[str, list[str]]) -> Upload:
    """Return the upload in `body`.

    Args:
        body: the request's body.
        content_type: its type.
        query: the options of a body that is the archive itself.

    Raises:
        UnsupportedType: neither multipart nor an archive.
        BadRequest: a body that cannot be read.
        BadInput: an option that is not what it should be.
    """
    sent = read_sent(body, content_type)
    options = _options(query if sent.fields is None else sent.fields)
    return Upload(options, sent.archive, sent.parts)


def _options(fields: Mapping[str, list[str]]) -> UploadOptions:
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise BadInput(
            f"There is no field {unknown[0][:80]!r}.",
            fix=f"The fields are: files, archive, {', '.join(sorted(_FIELDS))}.",
            field=unknown[0][:80],
        )
    label, group = _one(fields, "label"), _one(fields, "group")
    return UploadOptions(
        label=label,
        split=_split(_one(fields, "split")),
        group=None if group is None else clean_text(group, "group"),
        groups=_groups(_one(fields, "groups")),
        ok=fields.get("ok", []),
    )


def _one(fields: Mapping[str, list[str]], name: str) -> str | None:
    values = fields.get(name, [])
    if len(values) > 1:
        raise BadInput(
            f"The field {name!r} is there {len(values)} times.", fix="Send it once.", field=name
        )
    return values[0] if values else None


def _split(value: str | None) -> Split:
    if value is None or value == "train":
        return "train"
    if value == "holdout":
        return "holdout"
    raise BadInput(
        f"The split {value[:80]!r} is neither 'train' nor 'holdout'.",
        fix="Send one of the two.",
        field="split",
    )


def _groups(value: str | None) -> dict[str, str]:
    if value is None:
        return {}
    try:
        groups = json.loads(value)
    except (ValueError, RecursionError):
        groups = None
    if not isinstance(groups, dict) or not all(isinstance(g, str) for g in groups.values()):
        raise BadInput(
            f"The field 'groups' is not a JSON object of strings: {value[:80]!r}.",
            fix='Send {"file name": "group"}.',
            field="groups",
        )
    return {name: clean_text(group, "groups") for name, group in groups.items()}
