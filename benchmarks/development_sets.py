"""Data sets to choose a recipe on: none of them is one that a recipe is judged on.

Made of what two packages carry (scikit-learn, scikit-image), by seeded draws: handwritten digits,
textures, faces, and brick with drawn defects.
"""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import skimage.data
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from models.classes import class_spec
from models.dataset import Dataset, LabelledImage

PER_CLASS = 60
_PATCH = 96  # pixels per side
_TEXTURES: Mapping[str, Callable[[], NDArray[np.uint8]]] = {
    "brick": skimage.data.brick,
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
    "stained tissue": skimage.data.immunohistochemistry,
    "moon surface": skimage.data.moon,
    "printed page": skimage.data.page,
    "retina": skimage.data.retina,
    "night sky": skimage.data.hubble_deep_field,
}


class Picture(NamedTuple):
    """An image and the name of its class."""

    label: str
    image: PIL.Image.Image


def digits() -> Iterator[Picture]:
    """Scanned handwritten digits, 8 x 8 pixels, ten classes."""
    bunch = load_digits()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    for number, name in enumerate(names):
        for grey in bunch.images[bunch.target == number][:PER_CLASS]:
            yield Picture(f"digit {name}", PIL.Image.fromarray((grey * 15).astype(np.uint8)))


def textures() -> Iterator[Picture]:
    """Patches of eight pictures."""
    rng = np.random.default_rng(0)
    for name, load in _TEXTURES.items():
        whole = PIL.Image.fromarray(load()).convert("RGB")
        for _ in range(PER_CLASS):
            yield Picture(name, _patch(whole, rng))


def faces() -> Iterator[Picture]:
    """Faces and what is none, 25 x 25 pixels."""
    greys: NDArray[np.float64] = skimage.data.lfw_subset()
    for index, grey in enumerate(greys):
        name = "face" if index < len(greys) // 2 else "background without a face"
        yield Picture(name, PIL.Image.fromarray((grey * 255).astype(np.uint8)))


def drawn_defects() -> Iterator[Picture]:
    """Patches of a brick wall, whole, or with a scratch, a stain, a hole or a smear drawn on it."""
    rng = np.random.default_rng(1)
    whole = PIL.Image.fromarray(skimage.data.brick()).convert("RGB")
    for name, draw in _DEFECTS.items():
        for _ in range(PER_CLASS):
            yield Picture(name, draw(_patch(whole, rng), rng))


SETS: Mapping[str, Callable[[], Iterator[Picture]]] = {
    "digits": digits,
    "textures": textures,
    "faces": faces,
    "drawn_defects": drawn_defects,
}


def development_set(name: str) -> Dataset:
    """Return one of `SETS`; every image is a group of its own."""
    pictures = list(SETS[name]())
    names = sorted({picture.label for picture in pictures})
    images = [_labelled(picture, names, index) for index, picture in enumerate(pictures)]
    return Dataset([class_spec(label) for label in names], images)


def _labelled(picture: Picture, names: list[str], index: int) -> LabelledImage:
    buffer = io.BytesIO()
    picture.image.convert("RGB").save(buffer, "PNG")
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    label = names.index(picture.label)
    return LabelledImage(digest, label, digest, "train", lambda: data, f"{picture.label} {index}")


def _patch(whole: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    left, top = (int(rng.integers(side - _PATCH)) for side in whole.size)
    return whole.crop((left, top, left + _PATCH, top + _PATCH))


def _place(rng: np.random.Generator) -> tuple[int, int]:
    x, y = (int(v) for v in rng.integers(15, _PATCH - 15, 2))
    return x, y


def _intact(patch: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    del rng
    return patch


def _scratch(patch: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    (x, y), angle, length = _place(rng), rng.uniform(0, np.pi), rng.uniform(15, 45)
    end = (x + length * np.cos(angle), y + length * np.sin(angle))
    PIL.ImageDraw.Draw(patch).line([(x, y), end], fill=(225, 225, 225), width=2)
    return patch


def _stain(patch: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    (x, y), radius = _place(rng), rng.uniform(6, 14)
    mask = PIL.Image.new("L", patch.size)
    PIL.ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=120)
    dark = PIL.Image.new("RGB", patch.size, (60, 40, 20))
    return PIL.Image.composite(dark, patch, mask.filter(PIL.ImageFilter.GaussianBlur(2)))


def _hole(patch: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    (x, y), radius = _place(rng), rng.uniform(2, 5)
    box = (x - radius, y - radius, x + radius, y + radius)
    PIL.ImageDraw.Draw(patch).ellipse(box, fill=(5, 5, 5))
    return patch


def _smear(patch: PIL.Image.Image, rng: np.random.Generator) -> PIL.Image.Image:
    (x, y), side = _place(rng), 15
    box = (x - side, y - side, x + side, y + side)
    patch.paste(patch.crop(box).filter(PIL.ImageFilter.GaussianBlur(3)), box)
    return patch


_DEFECTS = {
    "intact brick wall": _intact,
    "brick wall with a scratch": _scratch,
    "brick wall with a stain": _stain,
    "brick wall with a hole": _hole,
    "brick wall with a smear": _smear,
}
