"""Photographs as they come: the one decoder, and how a project looks at them.

`models.pixels` makes of them what an image encoder sees. No torch in either: the gateway runs
without it where its engine does.
"""

import hashlib
import io
from typing import Literal, NamedTuple

import numpy as np
import PIL.Image
from PIL.ExifTags import Base as ExifTag
from pydantic import BaseModel, ConfigDict, model_validator

from models.errors import BadImage, BadView

MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535  # JPEG's own limit; resizing takes 32 bytes per pixel of the longer side
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# Changes whenever `decode` or `to_pixels` would give other pixels for the same bytes: features and
# artifacts made with another version are not comparable.
DECODER_VERSION = "pillow/1"

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


def check_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode `data` to the last pixel and say what it is.

    Raises:
        BadImage: empty, not an image, truncated, or of more than `max_pixels` pixels or `MAX_SIDE`
            pixels on a side.
    """
    image, image_format = _decode(data, max_pixels)
    return ImageFacts(hashlib.sha256(data).hexdigest(), image_format, image.width, image.height)


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """Decode `data` to an upright RGB image.

    EXIF orientation is applied; 16-bit grey keeps its high byte, whatever its content, so that
    brightness means the same in every image.

    Raises:
        BadImage: see `check_image`.
    """
    return _decode(data, max_pixels)[0]


def _decode(data: bytes, max_pixels: int) -> tuple[PIL.Image.Image, str]:
    if not data:
        raise BadImage("The image has 0 bytes.", fix="Send the file again; it arrived empty.")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_header(image, max_pixels)
            image.load()
            return _to_rgb(_upright(image)), str(image.format)
    except PIL.UnidentifiedImageError:
        raise BadImage(
            f"The file is not an image: it starts with {data[:8]!r}.",
            fix="Send a JPEG, PNG, WebP, BMP, TIFF or GIF.",
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
        )
    if max(image.size) > MAX_SIDE:
        raise BadImage(
            f"The image has {image.width} x {image.height} pixels;"
            f" at most {MAX_SIDE} are allowed on a side.",
            fix="Cut it into shorter images.",
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a telephone's MPO repeats the picture as a preview
        raise BadImage(
            f"The {image.format} holds {frames} frames; one is expected.",
            fix="Send each frame as an image of its own.",
        )


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    # Pillow's own exif_transpose also rewrites all other EXIF tags, and fails on odd ones.
    transpose = _UPRIGHT.get(image.getexif().get(ExifTag.Orientation, 1))
    return image if transpose is None else image.transpose(transpose)


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "F":
        raise BadImage(
            "The image has floating-point pixels, whose brightness has no fixed scale.",
            fix="Save it with 8 or 16 bits per pixel.",
        )
    if image.mode.startswith("I"):
        high_byte = np.clip(np.asarray(image).astype(np.int64) // 256, 0, 255)
        image = PIL.Image.fromarray(high_byte.astype(np.uint8))
    return image.convert("RGB")
