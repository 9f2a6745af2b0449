"""Thumbnails: computed when first asked for, kept in a folder that may be deleted at any time."""

import io
import time
from contextlib import suppress
from pathlib import Path

from app.core.storage import Storage
from models.errors import StorageFull, StorageUnusable
from models.files import write_atomic
from models.imaging import decode

MIN_SIZE, MAX_SIZE = 32, 512
_QUALITY = 85
_KEPT_SECONDS = 30 * 24 * 3600.0


def thumbnail(storage: Storage, cache: Path, sha256: str, size: int) -> bytes:
    """Return a JPEG that fits into `size` x `size`.

    Raises:
        NotFound: the bytes are gone.
        Damaged: the bytes are not what their digest says.
    """
    path = cache / sha256[:2] / f"{sha256}-{size}.jpg"
    with suppress(FileNotFoundError):
        return path.read_bytes()
    image = decode(storage.read(sha256))
    image.thumbnail((size, size))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY)
    with suppress(StorageFull, StorageUnusable):  # it is only a cache
        write_atomic(path, encoded.getvalue())
    return encoded.getvalue()


def sweep_thumbnails(cache: Path) -> None:
    """Remove what was made a month ago: whoever asks again has it made again."""
    for path in cache.glob("??/*.jpg"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= _KEPT_SECONDS:
                path.unlink()
