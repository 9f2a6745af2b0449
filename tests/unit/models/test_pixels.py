"""From a photograph to pixels: open_clip's own transform, on the region that counts."""

import io
from typing import Literal

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from torch import Tensor

from models.errors import BadView
from models.imaging import View, check_image
from models.pixels import to_pixels
from tests.unit.models.conftest import encode, noise_image

Mode = Literal["fit", "crop", "stretch"]
OPEN_CLIP = {"crop": "shortest", "fit": "longest", "stretch": "squash"}
SIZES = [(32, 32), (64, 48), (48, 64), (33, 57), (201, 67), (67, 201), (7, 5), (300, 301), (90, 2)]


def photograph(width: int, height: int, seed: int = 0) -> PIL.Image.Image:
    """Return smooth colours with noise on top."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    smooth = np.stack([x, y, (x + y) / 2], axis=-1) * 200
    noise = np.random.default_rng(seed).normal(20, 15, smooth.shape)
    return PIL.Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def open_clips(image: PIL.Image.Image, mode: Mode, size: int, interpolation: str) -> Tensor:
    transform = open_clip.image_transform(
        size,
        is_train=False,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        resize_mode=OPEN_CLIP[mode],
        interpolation=interpolation,
    )
    return (transform(image) * 255).round().to(torch.uint8)


def levels_apart(one: np.ndarray, other: Tensor) -> int:
    return int(np.abs(one.astype(int) - other.numpy().astype(int)).max())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", OPEN_CLIP)
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_open_clips(
    size: tuple[int, int], mode: Mode, interpolation: Literal["bicubic", "bilinear"]
) -> None:
    image = photograph(*size)

    pixels = to_pixels(encode(image), View(resize=mode), 32, interpolation)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert levels_apart(pixels, open_clips(image, mode, 32, interpolation)) <= 2


@pytest.mark.parametrize("mode", OPEN_CLIP)
@pytest.mark.parametrize("side", [31, 224])
def test_pixels_are_open_clips_at_other_sizes(mode: Mode, side: int) -> None:
    image = photograph(150, 80)

    pixels = to_pixels(encode(image), View(resize=mode), side)
    assert levels_apart(pixels, open_clips(image, mode, side, "bicubic")) <= 2


# open_clip resizes before it converts, which for palettes means without interpolation: what every
# mode must equal is its RGB image.
MODES = {
    "L": ("L", "PNG"),
    "1": ("1", "PNG"),
    "palette": ("P", "PNG"),
    "palette GIF": ("P", "GIF"),
    "grey and alpha": ("LA", "PNG"),
    "alpha": ("RGBA", "PNG"),
    "CMYK": ("CMYK", "JPEG"),
    "CMYK TIFF": ("CMYK", "TIFF"),
    "YCbCr": ("RGB", "JPEG"),
    "WebP": ("RGB", "WEBP"),
    "BMP": ("RGB", "BMP"),
}


@pytest.mark.parametrize("mode", OPEN_CLIP)
@pytest.mark.parametrize(("kind", "image_format"), MODES.values(), ids=MODES)
def test_images_of_every_mode_are_rgb(mode: Mode, kind: str, image_format: str) -> None:
    data = encode(photograph(64, 48).convert(kind), image_format)
    with PIL.Image.open(io.BytesIO(data)) as stored:
        rgb = stored.convert("RGB")

    pixels = to_pixels(data, View(resize=mode), 32)
    assert levels_apart(pixels, open_clips(rgb, mode, 32, "bicubic")) <= 2
    assert check_image(data)[1:] == (image_format, 64, 48)


def test_fit_keeps_the_edges_and_crop_does_not() -> None:
    image = np.zeros((20, 60, 3), dtype=np.uint8)
    image[:, :3] = image[:, -3:] = 255
    data = encode(PIL.Image.fromarray(image))

    fit, crop = (to_pixels(data, View(resize=mode), 30) for mode in ("fit", "crop"))
    assert fit[:, 15, 0].min() > 200
    assert fit[:, 15, -1].min() > 200
    assert fit[:, :10].max() == 0  # black bars above and below
    assert fit[:, 20:].max() == 0
    assert crop.max() < 10


@pytest.mark.parametrize("mode", OPEN_CLIP)
@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (20_000, 3)])
def test_a_long_strip_does_not_fill_the_memory(mode: Mode, size: tuple[int, int]) -> None:
    # As wide as `crop` would first make them, these are images of gigapixels.
    data = encode(PIL.Image.new("RGB", size, (10, 20, 30)))

    pixels = to_pixels(data, View(resize=mode), 224)
    assert pixels.shape == (3, 224, 224)
    assert pixels.max(axis=(1, 2)).tolist() == [10, 20, 30]


def test_the_region_of_interest_by_hand() -> None:
    grey = np.arange(100, dtype=np.uint8).reshape(10, 10)
    data = encode(PIL.Image.fromarray(grey))

    def cut(*roi: float) -> list[list[int]]:
        left, top, right, bottom = roi
        size = round((right - left) * 10)
        return to_pixels(data, View(roi=(left, top, right, bottom)), size)[0].tolist()

    assert cut(0, 0, 0.2, 0.2) == [[0, 1], [10, 11]]
    assert cut(0.8, 0.4, 1, 0.6) == [[48, 49], [58, 59]]
    assert cut(0, 0, 1, 1) == grey.tolist()


def test_a_region_between_pixels_takes_those_it_touches() -> None:
    grey = np.arange(100, dtype=np.uint8).reshape(10, 10)
    data = encode(PIL.Image.fromarray(grey))

    pixels = to_pixels(data, View(roi=(0.41, 0.01, 0.59, 0.19)), 2)
    assert pixels[0].tolist() == [[4, 5], [14, 15]]


def test_the_smallest_region_is_a_pixel() -> None:
    data = encode(noise_image(0, (9, 99, 199)))

    pixels = to_pixels(data, View(roi=(0.5, 0.5, 0.5 + 1e-9, 0.5 + 1e-9)), 4)
    assert (pixels == pixels[:, :1, :1]).all()


def test_the_region_is_cut_from_the_upright_image() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = PIL.Image.Exif()
    exif[274] = 6
    data = encode(PIL.Image.fromarray(grey), exif=exif)

    # Upright, it is [[3, 0], [4, 1], [5, 2]].
    assert to_pixels(data, View(roi=(0.5, 0, 1, 1 / 3)), 1)[0].tolist() == [[0]]


def test_a_view_of_another_decoder_is_refused() -> None:
    with pytest.raises(BadView, match=r"'pillow/0'; this is 'pillow/2'"):
        to_pixels(encode(noise_image(0, (9, 9, 9))), View(decoder="pillow/0"), 8)
