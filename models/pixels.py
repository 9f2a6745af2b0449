"""From a photograph to the pixels that an image encoder sees.

`to_pixels` is the only way in, for tuning and for serving: what a model was tuned on is what it is
asked about.
"""

import math
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from models.errors import BadView
from models.imaging import (
    DECODER_VERSION,
    MAX_PIXELS,
    Interpolation,
    Photograph,
    View,
    decode_smaller,
)

_RESAMPLING = {
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "bilinear": PIL.Image.Resampling.BILINEAR,
}
# A JPEG is decoded so many times smaller where the region then still has that many times the pixels
# per side that are wanted: of photographs the mean difference is below 2 grey levels
# (docs/adr/052-decoder.md).
_SPARE = {8: 2.5, 4: 2.2, 2: 1.9}

_Box = tuple[float, float, float, float]  # left, top, right, bottom


class _Region(NamedTuple):
    """What a view sees of a photograph: `width` x `height` of the whole image's pixels."""

    image: PIL.Image.Image
    width: int
    height: int
    left: float  # of the region within `image`, in its pixels
    top: float
    shrink: int

    def resized(
        self, size: tuple[int, int], resample: PIL.Image.Resampling, box: _Box | None = None
    ) -> PIL.Image.Image:
        """Return the `box` of the region, in pixels of the whole image, as an image of `size`."""
        x0, y0, x1, y1 = box or (0, 0, self.width, self.height)
        inside = (
            self.left + x0 / self.shrink,
            self.top + y0 / self.shrink,
            self.left + x1 / self.shrink,
            self.top + y1 / self.shrink,
        )
        return self.image.resize(size, resample, inside)


def to_pixels(
    data: bytes,
    view: View,
    size: int,
    interpolation: Interpolation = "bicubic",
    *,
    max_pixels: int = MAX_PIXELS,
) -> UInt8[np.ndarray, "3 {size} {size}"]:
    """Decode `data`, cut the region of interest and resize it to `size` x `size`.

    Equal within 2 grey levels to open_clip's own transform: `crop` to its `shortest`, `fit` to its
    `longest`, `stretch` to its `squash`. For a JPEG whose region has about four times `size` pixels
    per side or more, the mean difference of a photograph is that small.

    Raises:
        BadImage: see `check_image`.
        BadView: the view was made for another version of the decoder.
    """
    check_decoder(view)

    def shrink(width: int, height: int) -> int:
        return _shrink(view, width, height, size)

    region = _cut(decode_smaller(data, shrink, max_pixels=max_pixels), view)
    resample = _RESAMPLING[interpolation]
    if view.resize == "stretch":
        square = region.resized((size, size), resample)
    elif view.resize == "fit":
        square = _fit(region, size, resample)
    else:
        square = _crop(region, size, resample)
    return np.ascontiguousarray(np.asarray(square.convert("RGB")).transpose(2, 0, 1))


def check_decoder(view: View) -> None:
    """Refuse a view whose pixels this decoder would not give.

    Raises:
        BadView: the view was made for another version of the decoder.
    """
    if view.decoder != DECODER_VERSION:
        raise BadView(
            f"The view was made for the decoder {view.decoder!r}; this is {DECODER_VERSION!r}.",
            fix="Tune again with this version of Shotline, or use the version it was tuned with.",
            field="decoder",
        )


def _shrink(view: View, width: int, height: int, size: int) -> int:
    """Return how much smaller an image may be decoded: 1, 2, 4 or 8."""
    left, top, right, bottom = _box(view, width, height)
    wide, high = right - left, bottom - top
    if view.resize == "stretch":
        across, down = size, size
    elif view.resize == "fit":
        across, down = _fitting(wide, high, size)
    else:
        across, down = _covering(wide, high, size)
    reduction = min(wide / across, high / down)
    return next((by for by, spare in _SPARE.items() if reduction >= by * spare), 1)


def _box(view: View, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the pixels that the region of interest touches."""
    left, top, right, bottom = view.roi or (0, 0, 1, 1)
    return (
        math.floor(left * width),
        math.floor(top * height),
        math.ceil(right * width),
        math.ceil(bottom * height),
    )


def _cut(photograph: Photograph, view: View) -> _Region:
    """Return the region alone: resizing would else mix in what lies beside it."""
    image, by = photograph.image, photograph.shrink
    left, top, right, bottom = _box(view, photograph.width, photograph.height)
    wide, high = right - left, bottom - top
    x0, x1 = (left + photograph.left) / by, (right + photograph.left) / by
    y0, y1 = (top + photograph.top) / by, (bottom + photograph.top) / by
    box = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    if box != (0, 0, image.width, image.height):
        image = image.crop(box)
    return _Region(image, wide, high, x0 - box[0], y0 - box[1], by)


def _fitting(width: int, height: int, size: int) -> tuple[int, int]:
    ratio = max(width, height) / size
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _covering(width: int, height: int, size: int) -> tuple[int, int]:
    # torchvision's Resize truncates the long side.
    short = min(width, height)
    return int(size * width / short), int(size * height / short)


def _fit(region: _Region, size: int, resample: PIL.Image.Resampling) -> PIL.Image.Image:
    width, height = _fitting(region.width, region.height, size)
    canvas = PIL.Image.new(region.image.mode, (size, size))
    canvas.paste(
        region.resized((width, height), resample), ((size - width) // 2, (size - height) // 2)
    )
    return canvas


def _crop(region: _Region, size: int, resample: PIL.Image.Resampling) -> PIL.Image.Image:
    width, height = _covering(region.width, region.height, size)
    left, top = round((width - size) / 2), round((height - size) / 2)  # as CenterCrop rounds
    # Resizes the centre alone, to the same pixels: the whole of a long strip would not fit in
    # memory.
    across, down = region.width / width, region.height / height
    box = (
        left * across,
        top * down,
        min((left + size) * across, region.width),
        min((top + size) * down, region.height),
    )
    return region.resized((size, size), resample, box)
