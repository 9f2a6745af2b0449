"""What a file claims of its inside, looked at before a decoder believes it.

A decoder's time follows the number of a file's parts (segments, scans, chunks, pages), which its
pixels do not bound: half a megabyte of JPEG can ask for minutes. No decoder here can be stopped,
so that files with more parts than cameras and programs write are not begun.
"""

import re

import PIL.Image

from models.errors import BadImage

# A progressive JPEG has about ten, no program writes twenty; each costs a pass over all pixels.
MOST_SCANS = 32
# Profiles and thumbnails come in pieces of 64 KiB: so many hold more than a file may have.
MOST_SEGMENTS = 2_000
# Programs write pixels in chunks of 8 KiB or more: 64 MiB of them.
MOST_CHUNKS = 20_000
MOST_FRAMES_COUNTED = 100
# Formats that are decoded in Python, byte by byte.
MOST_SLOW_BYTES = 16 << 20

_TILE_WIDTH, _TILE_LENGTH = 322, 323
_RUN_LENGTH = (1, 2)  # BMP's RLE8 and RLE4
_PNG = b"\x89PNG\r\n\x1a\n"
_SOS, _EOI = 0xDA, 0xD9
# Markers without a length: fill and escapes aside, TEM, RST0 to RST7 and SOI.
_BARE = {0x01, *range(0xD0, 0xD9)}
# In a scan's data 0xFF stands before 0x00 or a restart; anything else is a marker.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def check_parts(data: bytes) -> None:
    """Refuse a JPEG or PNG of too many parts; other files pass.

    Raises:
        BadImage: more scans, segments or chunks than any camera or program writes.
    """
    if data.startswith(b"\xff\xd8"):
        _check_scans(data, _check_segments(data))
    elif data.startswith(_PNG):
        _check_chunks(data)


def check_opened(image: PIL.Image.Image, size: int, max_pixels: int) -> None:
    """Refuse what only its header shows to be slow or large to decode.

    Args:
        image: opened, nothing decoded.
        size: bytes of the file.
        max_pixels: that a tile may have.

    Raises:
        BadImage: several frames, tiles larger than any image, or many bytes of a slow format.
    """
    frames = _frames(image)
    if frames > 1 and image.format != "MPO":  # a telephone's MPO repeats the picture as a preview
        more = "" if frames <= MOST_FRAMES_COUNTED else "more than "
        raise BadImage(
            f"The {image.format} holds {more}{min(frames, MOST_FRAMES_COUNTED)} frames; one is"
            " expected.",
            fix="Send each frame as an image of its own.",
            fault="form",
        )
    slow = image.format == "GIF" or (
        image.format == "BMP" and image.info.get("compression") in _RUN_LENGTH
    )
    if slow and size > MOST_SLOW_BYTES:
        raise BadImage(
            f"The {image.format} has {size} bytes; at most {MOST_SLOW_BYTES} are allowed of this"
            " kind, which is slow to decode.",
            fix="Save it as PNG or JPEG.",
            fault="large",
        )
    _check_tiles(image, max_pixels)


def _check_tiles(image: PIL.Image.Image, max_pixels: int) -> None:
    """Refuse tiles whose buffer alone would take gigabytes."""
    tags = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    whole = isinstance(width, int) and isinstance(length, int)
    if not whole or width * length > max_pixels:
        raise BadImage(
            f"The {image.format} has tiles of {width} x {length} pixels; at most"
            f" {max_pixels / 1e6:.0f} megapixels are allowed.",
            fix="Save it without tiles, or with smaller ones.",
            fault="large",
        )


def _frames(image: PIL.Image.Image) -> int:
    """Return how many frames there are, one more than the most where they are more.

    Pillow's own count of a TIFF's pages compares each with all before it.
    """
    if image.format not in {"GIF", "TIFF"}:
        return int(getattr(image, "n_frames", 1))
    count = 1
    try:
        while count <= MOST_FRAMES_COUNTED:
            image.seek(count)
            count += 1
    except EOFError:
        pass
    image.seek(0)
    return count


def _check_segments(data: bytes) -> int:
    """Walk over a JPEG's segments as Pillow does; return where its first scan begins."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        if data[at : at + 1] != b"\xff" or at + 1 >= len(data):
            return len(data)  # the decoder says what is wrong
        marker = data[at + 1]
        if marker == _SOS:
            return at
        at = _after(data, at, marker)
    raise _too_many("JPEG", MOST_SEGMENTS, "segments before its pixels")


def _after(data: bytes, at: int, marker: int) -> int:
    """Return where what follows a segment begins."""
    if marker == 0xFF:
        return at + 1
    if marker == 0x00 or marker in _BARE:
        return at + 2
    return at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


def _check_scans(data: bytes, at: int) -> None:
    scans, segments = 0, 0
    while at < len(data):
        found = _MARKER.search(data, at)
        if found is None or data[found.start() + 1] == _EOI:
            return
        at, marker = found.start(), data[found.start() + 1]
        scans += marker == _SOS
        segments += marker != _SOS
        if scans > MOST_SCANS:
            raise _too_many("JPEG", MOST_SCANS, "scans")
        if segments > MOST_SEGMENTS:
            raise _too_many("JPEG", MOST_SEGMENTS, "segments")
        at = _after(data, at, marker)


def _check_chunks(data: bytes) -> None:
    at = len(_PNG)
    for _ in range(MOST_CHUNKS):
        if at + 8 > len(data) or data[at + 4 : at + 8] == b"IEND":
            return
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise _too_many("PNG", MOST_CHUNKS, "chunks")


def _too_many(kind: str, most: int, parts: str) -> BadImage:
    return BadImage(
        f"The {kind} has more than {most} {parts}, more than any camera or program writes.",
        fix="Save it anew with an image editor.",
    )
