"""The decoder and the view: what the eye sees, from whatever a camera writes."""

import numpy as np
import PIL.Image
import pytest

from models.errors import BadView
from models.imaging import View, check_image, decode
from tests.unit.models.conftest import encode


@pytest.mark.parametrize(
    "roi",
    [
        (0.5, 0, 0.5, 1),
        (0.6, 0, 0.4, 1),
        (0, 0.6, 1, 0.4),
        (-0.1, 0, 1, 1),
        (0, 0, 1.1, 1),
        (0, 0, float("nan"), 1),
        (0, 0, float("inf"), 1),
    ],
)
def test_a_bad_region_of_interest_is_refused(roi: tuple[float, float, float, float]) -> None:
    with pytest.raises(BadView, match="The region of interest") as caught:
        View(roi=roi)
    assert caught.value.field == "roi"


def test_the_digest_of_a_view_changes_with_every_field() -> None:
    views = [
        View(),
        View(resize="crop"),
        View(resize="stretch"),
        View(roi=(0, 0, 1, 0.5)),
        View(roi=(0, 0, 1, 0.25)),
        View(decoder="pillow/99"),
    ]

    assert len({view.digest for view in views}) == len(views)
    assert set(View.model_fields) == {"roi", "resize", "decoder"}
    assert View(roi=(0, 0, 1, 0.5)).digest == View(roi=(0.0, 0.0, 1.0, 0.5)).digest
    assert View().digest.startswith("sha256:")


# What an eye sees of the stored rows [[1, 2, 3], [4, 5, 6]]; the EXIF standard says where the
# first row and the first column belong.
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],  # top, left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[4, 1], [5, 2], [6, 3]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[3, 6], [2, 5], [1, 4]],  # left, bottom
}
STORED = 40 * np.array(UPRIGHT[1])


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation: int, depth: type, image_format: str) -> None:
    exif = PIL.Image.Exif()
    exif[274] = orientation
    scale = 256 if depth is np.uint16 else 1
    image = PIL.Image.fromarray((STORED * scale).astype(depth))
    data = encode(image, image_format, exif=exif)

    expected = 40 * np.array(UPRIGHT[orientation])
    assert np.asarray(decode(data))[..., 0].tolist() == expected.tolist()
    facts = check_image(data)
    assert (facts.height, facts.width) == expected.shape


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_photographs_are_turned(image_format: str) -> None:
    exif = PIL.Image.Exif()
    exif[274] = 6
    image = PIL.Image.new("RGB", (64, 32))
    image.paste((255, 255, 255), (0, 0, 32, 32))  # stored left half is white: the upper half

    upright = np.asarray(decode(encode(image, image_format, exif=exif)))
    assert upright.shape == (64, 32, 3)
    assert upright[:24].min() > 200
    assert upright[40:].max() < 55


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_means_nothing_is_passed_over(orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[274] = orientation
    data = encode(PIL.Image.fromarray(STORED.astype(np.uint8)), exif=exif)

    assert np.asarray(decode(data))[..., 0].tolist() == STORED.tolist()


def test_odd_exif_beside_the_orientation_does_no_harm() -> None:
    # An ASCII tag whose count and offset point outside: Pillow cannot write it again.
    tags = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x02\x00"
        b"\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"
        b"\x69\x87\x02\x00\x01\x00\x00\x00A\x00\x00\x00"
        b"\x00\x00\x00\x00"
    )
    image = PIL.Image.fromarray(STORED.astype(np.uint8))

    upright = np.asarray(decode(encode(image, "PNG", exif=tags)))
    assert upright[..., 0].tolist() == (40 * np.array(UPRIGHT[6])).tolist()


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_byte(image_format: str) -> None:
    deep = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)

    pixels = np.asarray(decode(encode(PIL.Image.fromarray(deep), image_format)))
    assert pixels[..., 0].tolist() == [[0, 0, 1], [128, 255, 255]]
    assert (pixels == pixels[..., :1]).all()


def test_16_bit_grey_of_the_other_byte_order() -> None:
    image = PIL.Image.frombytes("I;16B", (2, 1), b"\x80\x00\xff\xff")

    assert np.asarray(decode(encode(image, "TIFF")))[0, :, 0].tolist() == [128, 255]


def test_32_bit_grey_saturates() -> None:
    deep = np.array([[-5, 0, 512, 65535, 2**30]], dtype=np.int32)

    pixels = np.asarray(decode(encode(PIL.Image.fromarray(deep), "TIFF")))
    assert pixels[0, :, 0].tolist() == [0, 0, 2, 255, 255]


def test_cmyk_colours() -> None:
    image = PIL.Image.new("CMYK", (16, 16), (255, 0, 0, 0))

    cyan = np.asarray(decode(encode(image, "JPEG", quality=95)))
    assert np.abs(cyan.astype(int) - [0, 255, 255]).max() <= 4


def test_a_palette_has_its_colours() -> None:
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)

    pixels = np.asarray(decode(encode(image, transparency=1)))
    assert pixels.tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_alpha_is_dropped() -> None:
    image = PIL.Image.new("RGBA", (1, 1), (10, 20, 30, 0))

    assert np.asarray(decode(encode(image))).tolist() == [[[10, 20, 30]]]


def test_a_telephones_mpo_is_its_first_picture() -> None:
    first, second = PIL.Image.new("RGB", (16, 8), (200, 0, 0)), PIL.Image.new("RGB", (16, 8))
    data = encode(first, "MPO", save_all=True, append_images=[second])

    assert check_image(data)[1:] == ("MPO", 16, 8)
    assert np.asarray(decode(data))[4, 8, 0] > 190
