"""Files of a few bytes that would keep a decoder busy for minutes, or take gigabytes."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from models.errors import BadImage
from models.imaging import check_image
from models.structure import MOST_CHUNKS, MOST_SCANS, MOST_SEGMENTS, MOST_SLOW_BYTES

NOISE = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)


def saved(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(NOISE).save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_scans(count: int) -> bytes:
    """A progressive JPEG of so many scans: its last one again and again."""
    plain = saved("JPEG", progressive=True)
    last = plain[plain.rindex(b"\xff\xda") : -2]
    return plain[:-2] + last * (count - plain.count(b"\xff\xda")) + plain[-2:]


def tiff(*more: tuple[int, int, int, int], next_at: int = 0) -> bytes:
    """A grey TIFF of 8 x 8 pixels in one strip, with more tags of one value each."""
    tags = [
        (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (278, 3, 1, 8), (279, 4, 1, 64),
    ]  # fmt: skip
    entries = sorted([*tags, *more])
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = 8 + 64
    return (
        struct.pack("<2sHI", b"II", 42, start)
        + bytes(64)
        + struct.pack("<H", len(entries))
        + body
        + struct.pack("<I", next_at)
    )


def pages(count: int) -> bytes:
    out = io.BytesIO()
    page = PIL.Image.new("L", (1, 1))
    page.save(out, "TIFF", save_all=True, append_images=[page] * (count - 1))
    return out.getvalue()


def refused(data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        check_image(data)
    assert caught.value.fix
    return caught.value.problem


def test_scans() -> None:
    assert check_image(with_scans(MOST_SCANS)).width == 16
    assert f"more than {MOST_SCANS} scans" in refused(with_scans(MOST_SCANS + 1))


@pytest.mark.parametrize(
    "part",
    [b"\xff\xfe\x00\x02", b"\xff\xe1\x00\x02", b"\xff\xfe\x00\x00", b"\xff", b"\xff\x01"],
    ids=["comments", "EXIF", "of no length", "fill", "bare"],
)
def test_segments_before_the_pixels(part: bytes) -> None:
    plain = saved("JPEG")
    assert "segments" in refused(plain[:2] + part * MOST_SEGMENTS + plain[2:])
    few = plain[:2] + b"\xff\xfe\x00\x02" * 100 + plain[2:]
    assert check_image(few).height == 24


def test_segments_between_scans() -> None:
    plain = saved("JPEG", progressive=True)
    at = plain.rindex(b"\xff\xda")
    comments = b"\xff\xfe\x00\x02" * (MOST_SEGMENTS + 1)
    assert "segments" in refused(plain[:at] + comments + plain[at:])


def test_what_follows_the_end_of_a_jpeg_does_not_count() -> None:
    assert check_image(saved("JPEG") + b"\xff\xda\x00\x08......" * 500).width == 16


def test_chunks() -> None:
    plain = saved("PNG")
    private = chunk(b"abCd")
    assert check_image(plain[:33] + private * 1000 + plain[33:]).width == 16
    assert "chunks" in refused(plain[:33] + private * MOST_CHUNKS + plain[33:])
    assert "chunks" in refused(plain[:-12] + private * MOST_CHUNKS + plain[-12:])


def test_a_chunk_that_claims_more_than_there_is() -> None:
    plain = saved("PNG")
    claim = struct.pack(">I", 2**31 - 1) + b"abCd"
    assert "damaged" in refused(plain[:33] + claim + plain[33:])


def test_pages_are_not_counted_without_end() -> None:
    assert "holds 3 frames" in refused(pages(3))
    assert "holds more than 100 frames" in refused(pages(102))


def test_pages_in_a_circle() -> None:
    assert check_image(tiff()).format == "TIFF"
    assert check_image(tiff(next_at=8 + 64)).width == 8  # a page that names itself is the last


def test_tiles_larger_than_any_image() -> None:
    tiles = [(322, 4, 1, 30_000), (323, 4, 1, 30_000), (324, 4, 1, 8), (325, 4, 1, 64)]
    assert "tiles of 30000 x 30000" in refused(tiff(*tiles))
    as_text = (322, 2, 2, ord("9"))
    assert "tiles of 9 x 8" in refused(tiff(as_text, (323, 3, 1, 8)))


def test_run_length_bmp_and_gif_have_a_limit_of_their_own() -> None:
    def bmp(data: bytes) -> bytes:
        header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(data), 0, 0, 256, 0)
        start = 14 + 40 + 1024
        head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
        return head + header + bytes(1024) + data

    assert check_image(bmp(b"\x08\x05\0\0" * 8 + b"\0\1")).format == "BMP"
    assert "slow to decode" in refused(bmp(b"\0\0" * (MOST_SLOW_BYTES // 2)))
    gif = saved("GIF")
    assert check_image(gif).format == "GIF"
    assert "slow to decode" in refused(gif + bytes(MOST_SLOW_BYTES))
