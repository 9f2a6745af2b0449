"""Files: written so that a reader sees the whole of the old or of the new one, and recognised."""

import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path

from models.errors import file_errors


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name, flush it to the disk, then rename it to `path`.

    Raises:
        StorageFull: when the disk fills; nothing is left behind and an older `path` is untouched.
        StorageUnusable: when the system refuses; the same.
    """
    with file_errors(path, "written"):
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        # Not by tempfile, whose files no other account may read: the umask says who may.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        for folder in (path.parent, *(one.parent for one in made)):
            flush_to_disk(folder)


def read_metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file; nothing for a file of another kind."""
    try:
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    if isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values()):
        return metadata
    return {}


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Have a file's bytes, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Have all below a folder survive a power cut, before the name does that promises it."""
    for path in [*folder.rglob("*"), folder]:
        flush_to_disk(path)
