"""Faults planted into clean images: what the data doctor should find."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter

from models.dataset import LabelledImage
from models.imaging import decode

Change = Callable[[PIL.Image.Image, np.random.Generator], PIL.Image.Image]


def as_file(image: PIL.Image.Image, quality: int = 95, kind: str = "JPEG") -> bytes:
    """Return the image as a file; `quality` is a JPEG's."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": quality} if kind == "JPEG" else {}))
    return buffer.getvalue()


def in_memory(data: bytes, like: LabelledImage, name: str) -> LabelledImage:
    """Return an image of these bytes, labelled as another one and alone in its group."""
    digest = hashlib.sha256(data).hexdigest()
    return replace(like, sha256=digest, group=digest, read=lambda: data, name=name)


def _resized(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    factor = rng.uniform(0.5, 0.8)
    size = (max(8, round(image.width * factor)), max(8, round(image.height * factor)))
    return image.resize(size, PIL.Image.Resampling.BICUBIC)


def _brightness(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    factor = rng.choice([rng.uniform(0.7, 0.85), rng.uniform(1.15, 1.3)])
    return PIL.ImageEnhance.Brightness(image).enhance(float(factor))


def _cropped(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    kept = rng.uniform(0.85, 0.95)
    width, height = round(image.width * kept), round(image.height * kept)
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _blurred(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    """Blur by 2 to 4 % of the encoder's view, whatever the size of the image."""
    radius = max(image.size) * rng.uniform(0.012, 0.025)
    return image.filter(PIL.ImageFilter.GaussianBlur(radius))


def _dark(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    return PIL.ImageEnhance.Brightness(image).enhance(rng.uniform(0.05, 0.15))


def _overexposed(image: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    """Four to six times as bright, at least as much as turns half of the pixels white."""
    grey = np.asarray(image.convert("L"))
    factor = max(rng.uniform(3, 5), 260 / max(1.0, float(np.median(grey))))
    return PIL.ImageEnhance.Brightness(image).enhance(factor)


COPIES: Mapping[str, Change | None] = {
    "exact": None,
    "re-encoded": lambda image, _: image,  # as JPEG of quality 60
    "resized": _resized,
    "brightness": _brightness,
    "cropped": _cropped,
}
FAULTS: Mapping[str, Change] = {"blurred": _blurred, "dark": _dark, "overexposed": _overexposed}


class Copy(NamedTuple):
    """A planted copy and the image that it is of."""

    how: str
    original: LabelledImage
    copy: LabelledImage


def plant_copies(
    images: Sequence[LabelledImage], each: int, rng: np.random.Generator, labels: int
) -> list[Copy]:
    """Return `each` copies of every kind, of images drawn without replacement.

    Every third is labelled as another of the `labels` classes, every third is put into the holdout.
    """
    chosen = rng.permutation(len(images))[: each * len(COPIES)]
    copies = []
    for number, index in enumerate(chosen):
        how = list(COPIES)[number % len(COPIES)]
        original = images[index]
        copy = in_memory(_copy(original, how, rng), original, f"{how} copy of {original.name}")
        if COPIES[how] is None:
            copy = replace(copy, sha256=original.sha256)  # of a re-encoded set no real digest
        if number % 3 == 1:
            copy = replace(copy, label=(original.label + 1) % labels)
        elif number % 3 == 2:
            copy = replace(copy, split="holdout")
        copies.append(Copy(how, original, copy))
    return copies


def _copy(original: LabelledImage, how: str, rng: np.random.Generator) -> bytes:
    change = COPIES[how]
    if change is None:
        return original.read()
    quality = 60 if how == "re-encoded" else 90
    return as_file(change(decode(original.read()), rng), quality)


def plant_fault(image: LabelledImage, how: str, rng: np.random.Generator) -> LabelledImage:
    """Return the image blurred, dark or overexposed."""
    data = as_file(FAULTS[how](decode(image.read()), rng))
    return in_memory(data, image, f"{how} {image.name}")


def flip_labels(
    images: Sequence[LabelledImage], share: float, rng: np.random.Generator, labels: int
) -> tuple[list[LabelledImage], set[int]]:
    """Give a share of the images, at least one, another of the labels; return which."""
    count = max(1, round(share * len(images)))
    flipped = {int(index) for index in rng.permutation(len(images))[:count]}
    changed = [
        replace(image, label=(image.label + int(rng.integers(1, labels))) % labels)
        if index in flipped
        else image
        for index, image in enumerate(images)
    ]
    return changed, flipped
