"""From a photograph to the pixels that an image encoder sees.

`to_pixels` is the only way in, for tuning and for serving: what a model was tuned on is what it is
asked about.
"""

import math

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from models.errors import BadView
from models.imaging import DECODER_VERSION, MAX_PIXELS, Interpolation, View, decode

_RESAMPLING = {
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "bilinear": PIL.Image.Resampling.BILINEAR,
}


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
    `longest`, `stretch` to its `squash`.

    Raises:
        BadImage: see `check_image`.
        BadView: the view was made for another version of the decoder.
    """
    check_decoder(view)
    region = _cut(decode(data, max_pixels=max_pixels), view)
    resample = _RESAMPLING[interpolation]
    if view.resize == "stretch":
        square = region.resize((size, size), resample)
    elif view.resize == "fit":
        square = _fit(region, size, resample)
    else:
        square = _crop(region, size, resample)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


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


def _cut(image: PIL.Image.Image, view: View) -> PIL.Image.Image:
    if view.roi is None:
        return image
    left, top, right, bottom = view.roi
    box = (
        math.floor(left * image.width),
        math.floor(top * image.height),
        math.ceil(right * image.width),
        math.ceil(bottom * image.height),
    )
    return image.crop(box)


def _fit(image: PIL.Image.Image, size: int, resample: PIL.Image.Resampling) -> PIL.Image.Image:
    ratio = max(image.width, image.height) / size
    width = max(1, round(image.width / ratio))
    height = max(1, round(image.height / ratio))
    canvas = PIL.Image.new("RGB", (size, size))
    canvas.paste(
        image.resize((width, height), resample), ((size - width) // 2, (size - height) // 2)
    )
    return canvas


def _crop(image: PIL.Image.Image, size: int, resample: PIL.Image.Resampling) -> PIL.Image.Image:
    # torchvision's Resize truncates the long side; CenterCrop rounds the offset.
    short = min(image.width, image.height)
    width, height = (int(size * side / short) for side in (image.width, image.height))
    left, top = round((width - size) / 2), round((height - size) / 2)
    # Resizes the centre alone, to the same pixels: the whole of a long strip would not fit in
    # memory.
    across, down = image.width / width, image.height / height
    box = (
        left * across,
        top * down,
        min((left + size) * across, image.width),
        min((top + size) * down, image.height),
    )
    return image.resize((size, size), resample, box)
