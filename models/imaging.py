"""Photographs as they come: the one decoder, and how a project looks at them.

`models.pixels` makes of them what an image encoder sees. No torch in either: the gateway runs
without it where its engine does.
"""

import hashlib
import io
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import PIL.Image
from PIL.ExifTags import Base as ExifTag
from pydantic import BaseModel, ConfigDict, model_validator

from models.errors import BadImage, BadView
from models.structure import check_opened, check_parts

MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535  # JPEG's own limit; resizing takes 32 bytes per pixel of the longer side
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# Changes whenever `decode` or `to_pixels` would give other pixels for the same bytes: features and
# artifacts made with another version are not comparable. 1: every image decoded whole; 2: JPEGs far
# larger than what is wanted of them are decoded at a half, a quarter or an eighth of their size.
DECODER_VERSION = "pillow/2"

# `decode` looks at the size before any pixel is decoded; Pillow's own limit would warn first.
PIL.Image.MAX_IMAGE_PIXELS = None

ResizeMode = Literal["fit", "crop", "stretch"]
Interpolation = Literal["bicubic", "bilinear"]
# What turns an image of each EXIF orientation upright.
_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
# The orientations whose upright left edge is the stored right or bottom one, and whose upright top
# edge is the stored bottom or right one.
_LEFT_IS_AN_END, _TOP_IS_AN_END = {2, 3, 6, 7}, {3, 4, 7, 8}


class View(BaseModel):
    """How a project looks at an image.

    Attributes:
        roi: region of interest as fractions of width and height: left, top, right, bottom.
        resize: `fit` keeps the whole region and pads with black, so that a defect at the edge is
        seen;
            `crop` keeps the centre square; `stretch` ignores the aspect ratio.
        decoder: the version of the decoder, see `DECODER_VERSION`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    roi: tuple[float, float, float, float] | None = None
    resize: ResizeMode = "fit"
    decoder: str = DECODER_VERSION

    @model_validator(mode="after")
    def _check_roi(self) -> "View":
        if self.roi is not None:
            left, top, right, bottom = self.roi
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise BadView(
                    f"The region of interest {self.roi} is not left < right and top < bottom"
                    " within 0 and 1.",
                    fix="Give fractions of the image's width and height, such as 0.1,0.1,0.9,0.9.",
                    field="roi",
                )
        return self

    @property
    def digest(self) -> str:
        """`sha256:` over the fields: the same digest, the same pixels."""
        return "sha256:" + hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class PixelSpec(NamedTuple):
    """What an image encoder expects: pixels per side, mean and standard deviation per channel."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation


class ImageFacts(NamedTuple):
    """What is known of an image file once it has been decoded."""

    sha256: str
    format: str
    width: int
    height: int


class Photograph(NamedTuple):
    """An upright image, decoded whole or smaller.

    Attributes:
        image: in RGB, or L where the file is grey.
        width, height: of the whole image, in pixels.
        shrink: how many of those a pixel of `image` is wide and high: 1, 2, 4 or 8.
        left, top: how many of those the first pixel of `image` reaches beyond the whole image; less
            than `shrink`.
    """

    image: PIL.Image.Image
    width: int
    height: int
    shrink: int
    left: int
    top: int


def check_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode `data` to the last pixel and say what it is.

    Raises:
        BadImage: empty, not an image, truncated, or of more than `max_pixels` pixels or `MAX_SIDE`
            pixels on a side.
    """
    return check_and_decode(data, max_pixels=max_pixels)[0]


def check_and_decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[ImageFacts, Photograph]:
    """Decode `data` whole; return what `check_image` does, and the photograph.

    Raises:
        BadImage: see `check_image`.
    """
    photograph, image_format = _decode(data, max_pixels, _whole)
    digest = hashlib.sha256(data).hexdigest()
    return ImageFacts(digest, image_format, photograph.width, photograph.height), photograph


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Decode `data` to an upright RGB image.

    EXIF orientation is applied; 16-bit grey keeps its high byte, whatever its content, so that
    brightness means the same in every image.

    Raises:
        BadImage: see `check_image`.
    """
    return _decode(data, max_pixels, _whole)[0].image.convert("RGB")


def decode_smaller(
    data: bytes, shrink: Callable[[int, int], int], *, max_pixels: int = MAX_PIXELS
) -> Photograph:
    """Decode as `decode` does, a JPEG as much smaller as `shrink` says.

    Args:
        data: the file.
        shrink: called with the upright width and height of a JPEG, returns 1, 2, 4 or 8.
        max_pixels: of the whole image.

    Raises:
        BadImage: see `check_image`.
    """
    return _decode(data, max_pixels, shrink)[0]


def _whole(_width: int, _height: int) -> int:
    return 1


def _decode(
    data: bytes, max_pixels: int, shrink: Callable[[int, int], int]
) -> tuple[Photograph, str]:
    if not data:
        raise BadImage(
            "The image has 0 bytes.", fix="Send the file again; it arrived empty.", fault="empty"
        )
    check_parts(data)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, max_pixels)
            check_opened(image, len(data), max_pixels)
            return _load(image, shrink), str(image.format)
    except PIL.UnidentifiedImageError:
        raise BadImage(
            f"The file is not an image: it starts with {data[:8]!r}.",
            fix="Send a JPEG, PNG, WebP, BMP, TIFF or GIF.",
            fault="foreign",
        ) from None
    except BadImage:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything for damaged files
        raise BadImage(
            f"The image is truncated or damaged ({len(data)} bytes): {error}.",
            fix="Send the file again, or save it anew with an image editor.",
        ) from error


def _check_header(image: PIL.Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise BadImage(
            f"The image has {image.width} x {image.height} pixels,"
            f" {image.width * image.height / 1e6:.0f} megapixels;"
            f" at most {max_pixels / 1e6:.0f} are allowed.",
            fix="Send a smaller image, or one of the region of interest alone.",
            fault="large",
        )
    if max(image.size) > MAX_SIDE:
        raise BadImage(
            f"The image has {image.width} x {image.height} pixels;"
            f" at most {MAX_SIDE} are allowed on a side.",
            fix="Cut it into shorter images.",
            fault="large",
        )


def _load(image: PIL.Image.Image, shrink: Callable[[int, int], int]) -> Photograph:
    stored, by = image.size, 1
    if image.format in {"JPEG", "MPO"}:
        by = shrink(*_turned(stored, _orientation(image)))
        # libjpeg then leaves out the finest frequencies of each block of 8 x 8 pixels.
        if by > 1 and image.draft(None, (stored[0] // by, stored[1] // by)) is None:
            by = 1
    image.load()
    orientation = _orientation(image)  # a PNG's may come after its pixels
    width, height = _turned(stored, orientation)
    return Photograph(
        _to_rgb_or_grey(_upright(image, orientation)),
        width,
        height,
        by,
        -width % by if orientation in _LEFT_IS_AN_END else 0,
        -height % by if orientation in _TOP_IS_AN_END else 0,
    )


def _orientation(image: PIL.Image.Image) -> int:
    found = image.getexif().get(ExifTag.Orientation, 1)
    return found if found in _UPRIGHT else 1


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    width, height = size
    return (height, width) if orientation >= 5 else (width, height)


def _upright(image: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    # Pillow's own exif_transpose also rewrites all other EXIF tags, and fails on odd ones.
    transpose = _UPRIGHT.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _to_rgb_or_grey(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "F":
        raise BadImage(
            "The image has floating-point pixels, whose brightness has no fixed scale.",
            fix="Save it with 8 or 16 bits per pixel.",
            fault="form",
        )
    if image.mode.startswith("I"):
        # In the pixels' own type: wider ones would take gigabytes of an image of 50 megapixels.
        high_byte = np.clip(np.asarray(image) // 256, 0, 255)
        image = PIL.Image.fromarray(high_byte.astype(np.uint8))
    return image if image.mode == "L" else image.convert("RGB")
