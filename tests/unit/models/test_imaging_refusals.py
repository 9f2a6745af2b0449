"""Bytes that are no image: refused as `BadImage`, at once, and as nothing else."""

import hashlib
import struct
import time
import zlib

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import BadImage
from models.imaging import ImageFacts, check_image, decode
from tests.unit.models.conftest import encode, noise_image

IMAGE = noise_image(0, (120, 130, 140), size=9)
EXIF = PIL.Image.Exif()
EXIF[274] = 6
EXIF[270] = "a scratch"
DEEP = PIL.Image.fromarray(np.arange(81, dtype=np.uint16).reshape(9, 9) * 800)
FILES: dict[str, bytes] = {
    "JPEG": encode(IMAGE, "JPEG", exif=EXIF),
    "progressive JPEG": encode(IMAGE, "JPEG", progressive=True),
    "CMYK JPEG": encode(IMAGE.convert("CMYK"), "JPEG"),
    "MPO": encode(IMAGE, "MPO", save_all=True, append_images=[IMAGE]),
    "PNG": encode(IMAGE, "PNG", exif=EXIF),
    "palette PNG": encode(IMAGE.quantize(8), "PNG"),
    "16-bit PNG": encode(DEEP, "PNG"),
    "WebP": encode(IMAGE, "WEBP", exif=EXIF),
    "BMP": encode(IMAGE, "BMP"),
    "GIF": encode(IMAGE.quantize(8), "GIF"),
    "TIFF": encode(IMAGE, "TIFF", exif=EXIF),
    "deflated TIFF": encode(IMAGE, "TIFF", compression="tiff_deflate"),
}
# Pillow warns of odd metadata, and decodes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def png(width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    """Write a PNG with that size in its header, whatever its data is."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        sum_ = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sum_)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data, 9))
        + chunk(b"IEND", b"")
    )


def decoded_or_refused(data: bytes) -> None:
    """Decode, and let nothing but `BadImage` pass."""
    try:
        image = decode(data)
    except BadImage:
        return
    assert image.mode == "RGB"


def test_the_facts_of_a_whole_image() -> None:
    data = FILES["PNG"]

    assert check_image(data) == ImageFacts(hashlib.sha256(data).hexdigest(), "PNG", 9, 9)


def test_no_bytes() -> None:
    with pytest.raises(BadImage, match="The image has 0 bytes") as caught:
        check_image(b"")
    assert "arrived empty" in caught.value.fix


@pytest.mark.parametrize(
    "data",
    [b"x", b"%PDF-1.7 not an image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", bytes(99)],
)
def test_no_image(data: bytes) -> None:
    with pytest.raises(BadImage, match="The file is not an image: it starts with") as caught:
        check_image(data)
    assert repr(data[:8]) in caught.value.problem


def test_formats_that_run_programs_are_no_images() -> None:
    with pytest.raises(BadImage, match="not an image"):
        check_image(encode(IMAGE, "EPS"))


@pytest.mark.parametrize("kind", FILES)
def test_every_prefix_is_refused_or_whole(kind: str) -> None:
    data = FILES[kind]

    for end in range(1, len(data)):
        decoded_or_refused(data[:end])


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [("RGB", "JPEG"), ("RGB", "PNG"), ("I;16", "PNG"), ("RGB", "WEBP"), ("RGB", "TIFF")],
)
def test_a_photograph_cut_short_is_refused(mode: str, image_format: str) -> None:
    image = noise_image(1, (100, 100, 100), size=256)
    data = encode(image.convert("L").convert(mode) if mode != "RGB" else image, image_format)

    for end in range(len(data) // 4, 9 * len(data) // 10, len(data) // 9):
        with pytest.raises(BadImage, match=f"[( ]{end} bytes|not an image") as caught:
            decode(data[:end])
        assert caught.value.fix.startswith("Send ")


@settings(max_examples=300)
@given(st.data())
def test_changed_bytes_are_refused_or_decoded(data: st.DataObject) -> None:
    damaged = bytearray(FILES[data.draw(st.sampled_from(sorted(FILES)))])
    for _ in range(data.draw(st.integers(1, 4))):
        # The first bytes say how the rest is read.
        last = data.draw(st.sampled_from([60, 300, len(damaged)]))
        position = data.draw(st.integers(0, min(last, len(damaged)) - 1))
        damaged[position] = data.draw(st.sampled_from([0, 1, 127, 255]) | st.integers(0, 255))

    decoded_or_refused(bytes(damaged))


@given(st.sampled_from([data[:12] for data in FILES.values()]), st.binary(max_size=300))
def test_random_bytes_after_an_images_start(start: bytes, rest: bytes) -> None:
    decoded_or_refused(start + rest)


@pytest.mark.parametrize(
    ("size", "megapixels"), [((10_000, 10_000), "100 megapixels"), ((60_000, 60_000), "3600 mega")]
)
def test_a_png_bomb_is_refused_by_its_header(size: tuple[int, int], megapixels: str) -> None:
    # Its data would not decode: had it been read, the message would be another one.
    bomb = png(*size, b"no pixels")

    with pytest.raises(BadImage, match=megapixels) as caught:
        check_image(bomb)
    assert f"{size[0]} x {size[1]}" in caught.value.problem
    assert "at most 50 are allowed" in caught.value.problem


def test_a_whole_png_bomb_is_refused_in_a_moment() -> None:
    bomb = png(10_000, 10_000, bytes(10_000 * 1_251), depth=1, colour=0)
    assert len(bomb) < 20_000

    start = time.process_time()
    with pytest.raises(BadImage, match="100 megapixels"):
        decode(bomb)
    assert time.process_time() - start < 0.1


def test_the_limit_is_the_callers() -> None:
    data = FILES["PNG"]

    assert check_image(data, max_pixels=81).width == 9
    with pytest.raises(BadImage, match="9 x 9 pixels"):
        check_image(data, max_pixels=80)


def test_a_side_longer_than_any_jpegs_is_refused() -> None:
    with pytest.raises(BadImage, match="65536 x 1 pixels; at most 65535 are allowed on a side"):
        check_image(png(65_536, 1, b"no pixels"))


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(image_format: str) -> None:
    others = [noise_image(seed, (9, 99, 199), size=9) for seed in (1, 2)]
    data = encode(IMAGE, image_format, save_all=True, append_images=others)

    with pytest.raises(BadImage, match=f"The {image_format} holds 3 frames; one is expected") as e:
        check_image(data)
    assert "an image of its own" in e.value.fix


def test_floating_point_pixels_are_refused() -> None:
    image = PIL.Image.fromarray(np.ones((4, 4), dtype=np.float32))

    with pytest.raises(BadImage, match="floating-point") as caught:
        check_image(encode(image, "TIFF"))
    assert "8 or 16 bits" in caught.value.fix


def test_a_decoder_without_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object) -> None:
        raise MemoryError("no room for pixels")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(BadImage, match="no room for pixels"):
        decode(FILES["JPEG"])
