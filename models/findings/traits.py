"""What is measured of each image file on its own, from one look at it. No torch here.

Pixels are judged at `LOOKED_AT` per longer side at most: an encoder sees fewer, so that a blur too
fine for it is none.
"""

import base64
import io
from typing import Annotated, NamedTuple

import imagehash
import numpy as np
import PIL.Image
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

from models.imaging import FORMATS, MAX_PIXELS, Photograph, decode_smaller

TRAITS_VERSION = 1  # changes whenever the same bytes would give other traits
LOOKED_AT = 512
THUMBNAIL = 64
# Grey levels this near to black or white hold no detail.
_BLACK, _WHITE = 4, 251
_FRAME = 2  # pixels of the thumbnail that count as border

_Grey = Float[np.ndarray, "height width"]
Thumbnail = Annotated[
    np.ndarray,
    PlainSerializer(lambda grey: base64.b64encode(grey.tobytes()).decode(), return_type=str),
    PlainValidator(lambda value: value if isinstance(value, np.ndarray) else _from_text(value)),
]


def _from_text(text: str) -> UInt8[np.ndarray, "64 64"]:
    grey = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return grey.reshape(THUMBNAIL, THUMBNAIL)


class FileTraits(BaseModel):
    """What a file is like, whatever it shows: no class should differ from others in any of it.

    Attributes:
        format, mode: as Pillow names them.
        width, height: upright, in pixels.
        size_bytes: of the file.
        exif: whether it has EXIF data.
        quantisation: mean divisor of a JPEG's first table, which grows as its quality falls; 0 for
            other formats.
    """

    model_config = ConfigDict(frozen=True)

    format: str
    mode: str
    width: int
    height: int
    size_bytes: int
    exif: bool
    quantisation: float


class PixelTraits(BaseModel):
    """What the pixels are like, as grey levels from 0 to 255.

    Attributes:
        perceptual_hash: 64 bits, hexadecimal, of the lowest frequencies (ImageHash's `phash`):
            copies differ in few.
        dark, mean, bright: the 5th percentile, the mean and the 95th percentile.
        black, white: shares of pixels that hold no detail.
        sharpness: log of the variance of the Laplacian over the variance of the grey levels, so
            that contrast does not count.
        border_mean, border_std: of the outermost pixels.
    """

    model_config = ConfigDict(frozen=True)

    perceptual_hash: str
    dark: float
    mean: float
    bright: float
    black: float
    white: float
    sharpness: float
    border_mean: float
    border_std: float


class Traits(BaseModel):
    """What is measured of an image; `thumbnail` is `(64, 64)` grey, whatever the aspect ratio."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    file: FileTraits
    pixels: PixelTraits
    thumbnail: Thumbnail


class _Header(NamedTuple):
    format: str
    mode: str
    exif: bool
    quantisation: float


def measure(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Traits:
    """Decode `data`, a large JPEG at a fraction of its size, and measure it.

    Raises:
        BadImage: see `models.imaging.check_image`.
    """
    photograph = decode_smaller(data, _shrink, max_pixels=max_pixels)
    small = _small(photograph)
    return Traits(
        file=_file_traits(_header(data), photograph, len(data)),
        pixels=_pixel_traits(small),
        thumbnail=_thumbnail(small),
    )


def measure_pixels(photograph: Photograph) -> PixelTraits:
    """Measure what is decoded already."""
    return _pixel_traits(_small(photograph))


def _small(photograph: Photograph) -> PIL.Image.Image:
    small = photograph.image.convert("L")
    small.thumbnail((LOOKED_AT, LOOKED_AT), PIL.Image.Resampling.BOX)
    return small


def _thumbnail(small: PIL.Image.Image) -> UInt8[np.ndarray, "64 64"]:
    return np.asarray(small.resize((THUMBNAIL, THUMBNAIL), PIL.Image.Resampling.BOX))


def _shrink(width: int, height: int) -> int:
    return next((by for by in (8, 4, 2) if max(width, height) >= by * LOOKED_AT), 1)


def _header(data: bytes) -> _Header:
    with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
        tables = getattr(image, "quantization", None) or {}
        first = next(iter(tables.values()), [0])
        return _Header(
            str(image.format), image.mode, bool(image.getexif()), float(np.mean(np.asarray(first)))
        )


def _file_traits(header: _Header, photograph: Photograph, size: int) -> FileTraits:
    return FileTraits(
        format=header.format,
        mode=header.mode,
        width=photograph.width,
        height=photograph.height,
        size_bytes=size,
        exif=header.exif,
        quantisation=header.quantisation,
    )


def _pixel_traits(small: PIL.Image.Image) -> PixelTraits:
    hashed, thumbnail = str(imagehash.phash(small)), _thumbnail(small)
    grey = np.asarray(small, dtype=np.float32)
    dark, bright = np.percentile(grey, (5, 95))
    inner = thumbnail[_FRAME:-_FRAME, _FRAME:-_FRAME]
    frame = thumbnail.sum(dtype=np.float64) - inner.sum(dtype=np.float64)
    square = np.square(thumbnail, dtype=np.float64).sum() - np.square(inner, dtype=np.float64).sum()
    count = thumbnail.size - inner.size
    return PixelTraits(
        perceptual_hash=hashed,
        dark=float(dark),
        mean=float(grey.mean()),
        bright=float(bright),
        black=float((grey <= _BLACK).mean()),
        white=float((grey >= _WHITE).mean()),
        sharpness=_sharpness(grey),
        border_mean=float(frame / count),
        border_std=float(np.sqrt(max(square / count - (frame / count) ** 2, 0.0))),
    )


def _sharpness(grey: _Grey) -> float:
    """Return log(var(laplacian) / var(grey)), both with 1 added: flat images are not sharp."""
    if min(grey.shape) < 3:
        return 0.0
    centre = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * centre
    return float(np.log((laplacian.var() + 1) / (grey.var() + 1)))
