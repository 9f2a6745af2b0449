"""What seals the record of changes: a key outside the database, and the chain's end beside it.

Each entry's MAC is HMAC-SHA256 over canonical JSON of the entry and of the MAC before it. Whoever
can write to the database and cannot read the key can forge no entry, and take none out unnoticed.
"""

import fcntl
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import UUID

from app.core.errors import Unavailable
from models.errors import BadInput
from models.files import flush_to_disk

_KEY_BYTES = 32
_KEY = re.compile(r"[0-9a-f]{64}")
_HEAD = re.compile(r"(\d{1,20}):([0-9a-f]{64})")


class Head(NamedTuple):
    """The end of the chain: how many entries there are, and the MAC of the last one."""

    sequence: int
    mac: str

    def __str__(self) -> str:
        """Return it as people note it down: `SEQUENCE:MAC`."""
        return f"{self.sequence}:{self.mac}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `SEQUENCE:MAC`.

        Raises:
            BadInput: not of that form.
        """
        found = _HEAD.fullmatch(text.strip())
        if found is None:
            raise BadInput(
                f"{text[:100]!r} is not the head of an audit chain.",
                fix="Give it as SEQUENCE:MAC, as `shotline audit head` and the log print it.",
                field="head",
            )
        return cls(int(found[1]), found[2])


NO_ENTRY = Head(0, "0" * 64)


class AuditKey(NamedTuple):
    """The secret that MACs are made with."""

    secret: bytes

    @property
    def id(self) -> str:
        """What tells this key from others; it says nothing of the secret."""
        return hmac.digest(self.secret, b"shotline audit key", "sha256").hex()[:16]

    def mac(self, entry: Mapping[str, Any], previous: str) -> str:
        """Return the MAC of an entry, given by its columns, after the one with MAC `previous`."""
        sealed = {name: value for name, value in entry.items() if name != "mac"}
        message = canonical(sealed | {"previous": previous})
        return hmac.digest(self.secret, message.encode(), "sha256").hex()


def canonical(value: object) -> str:
    """Return the one way to write `value` as JSON: ASCII, keys in order, no spaces."""
    return json.dumps(
        value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=_plain
    )


def _plain(value: object) -> str:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    raise TypeError(f"{type(value).__name__} has no place in an audit entry.")


def load_key(path: Path) -> AuditKey | None:
    """Return the key in the file, None where there is no file.

    Raises:
        Unavailable: it cannot be read, or holds no key.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise _unusable(path, f"cannot be read: {error}") from error
    if not _KEY.fullmatch(text):
        raise _unusable(path, "does not hold 64 hexadecimal digits")
    return AuditKey(bytes.fromhex(text))


def make_key(path: Path) -> AuditKey:
    """Make the key's file and return what it holds; of many who try at once, one makes it.

    Raises:
        Unavailable: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(draft, f"{secrets.token_hex(_KEY_BYTES)}\n")
        with suppress(FileExistsError):  # another was faster: its key counts
            os.link(draft, path)  # never replaces, and never shows half a file
        draft.unlink()
        flush_to_disk(path.parent)
    except OSError as error:
        raise _unusable(path, f"cannot be made: {error}") from error
    key = load_key(path)
    if key is None:
        raise _unusable(path, "is gone again")
    return key


def _write_whole(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, what: str) -> Unavailable:
    return Unavailable(
        f"The audit key {path} {what}; without it no change is made.",
        fix="Let this account read the file that gateway, worker and command line share; see"
        " SHOTLINE_AUDIT_KEY_FILE.",
    )


def head_file(key_file: Path) -> Path:
    """Return the file beside the key in which the head is kept after each commit."""
    return key_file.with_suffix(".head")


def read_head(path: Path) -> Head | None:
    """Return the head in the file, None where none was kept.

    Raises:
        BadInput: the file holds something else.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    return Head.parse(text) if text else None


def keep_head(path: Path, head: Head, *, replace: bool = False) -> None:
    """Write the head into the file where it is further than what is there, or to `replace` that.

    Raises:
        OSError: the file cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        there = _HEAD.fullmatch(os.read(descriptor, 200).decode("ascii", "replace").strip())
        if replace or there is None or int(there[1]) < head.sequence:
            # Always of one length, so that no moment shows a mixture of two.
            os.pwrite(descriptor, f"{head.sequence:020d}:{head.mac}\n".encode(), 0)
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
