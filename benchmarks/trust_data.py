"""What `benchmarks.trust` measures on: features of sets and of frames that belong to none, cached.

A set is encoded once, with a sample of its images spoilt: frames of a camera whose lens cap is on,
which is out of focus, or which has four times the light.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFilter
import torch
from jaxtyping import Float
from rich.progress import track

from benchmarks.common import data_root
from benchmarks.development_sets import SETS as DEVELOPMENT
from benchmarks.development_sets import development_set
from benchmarks.science import DATA, MAGNETIC, prepare, renamed_groups
from models.backbone import IMAGE_BATCH, Backbone
from models.dataset import Dataset, read_folder, read_groups
from models.imaging import View, decode
from models.pixels import to_pixels
from models.trust.photograph import photograph_statistics

CACHE = Path("build/trust")
SPOILT = 100  # images of a set that are spoilt each way
_DARK = 40  # frames under a lens cap

Spoil = Callable[[PIL.Image.Image], PIL.Image.Image]


@dataclass(frozen=True)
class Seen:
    """Images as a model sees them.

    Attributes:
        features: L2-normalised, `(n, embed_dim)`.
        statistics: of the photographs, `(n, 4)`, see `models.trust.photograph`.
    """

    features: Float[np.ndarray, "n dim"]
    statistics: Float[np.ndarray, "n 4"]


@dataclass(frozen=True)
class CachedSet:
    """A set of labelled images and its spoilt frames.

    Attributes:
        dataset: classes and images.
        seen: the images, in their order.
        spoilt: frames that are not to be decided on, by what is wrong with them.
    """

    dataset: Dataset
    seen: Seen
    spoilt: dict[str, Seen]


def _blurred(image: PIL.Image.Image) -> PIL.Image.Image:
    """Out of focus: a blur of 4 % of the shorter side."""
    return image.filter(PIL.ImageFilter.GaussianBlur(0.04 * min(image.size)))


def _slightly_blurred(image: PIL.Image.Image) -> PIL.Image.Image:
    return image.filter(PIL.ImageFilter.GaussianBlur(0.015 * min(image.size)))


def _overexposed(image: PIL.Image.Image) -> PIL.Image.Image:
    """Four times the light: two stops."""
    return image.point(lambda level: min(255, 4 * level))


def _underexposed(image: PIL.Image.Image) -> PIL.Image.Image:
    return image.point(lambda level: level // 8)


FRAMES: dict[str, Spoil] = {
    "blurred": _blurred,
    "slightly_blurred": _slightly_blurred,
    "overexposed": _overexposed,
    "underexposed": _underexposed,
}


def dataset_of(name: str) -> Dataset:
    """Return one of `benchmarks.science`'s sets, or of the development sets."""
    if name in DEVELOPMENT:
        return development_set(name)
    prepare()
    groups = data_root() / f"{name}_groups.tsv"
    members = read_groups(renamed_groups(groups)) if name == MAGNETIC else None
    return read_folder(DATA / name, groups=members)


def cached(name: str, load: Callable[[], Backbone]) -> CachedSet:
    """Return a set; what is not in the cache is encoded."""
    dataset, path = dataset_of(name), CACHE / f"{name}.npz"
    if not path.exists():
        backbone = load()
        rng = np.random.default_rng(0)
        chosen = rng.permutation(len(dataset.images))[:SPOILT].tolist()
        originals = [decode(dataset.images[index].read()) for index in chosen]
        parts = {"images": _see([image.read() for image in dataset.images], backbone, name)}
        for kind, spoil in FRAMES.items():
            parts[kind] = _see([_png(spoil(image)) for image in originals], backbone, kind)
        parts["black"] = _see(list(_black(originals, rng)), backbone, "black")
        arrays = {
            f"{kind}.{field}": getattr(part, field)
            for kind, part in parts.items()
            for field in ("features", "statistics")
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
    found: Any = np.load(path)
    kinds = {key.split(".")[0] for key in found.files} - {"images"}
    seen = {
        kind: Seen(found[f"{kind}.features"], found[f"{kind}.statistics"])
        for kind in ("images", *sorted(kinds))
    }
    return CachedSet(dataset, seen.pop("images"), seen)


def _black(images: Sequence[PIL.Image.Image], rng: np.random.Generator) -> Iterable[bytes]:
    """Yield frames under a lens cap: black, with the noise of a sensor."""
    for image in images[:_DARK]:
        level, noise = rng.uniform(0, 8), rng.uniform(0, 4)
        grey = rng.normal(level, noise, (image.height, image.width)).clip(0, 255)
        yield _png(PIL.Image.fromarray(grey.astype(np.uint8)).convert("RGB"))


def _png(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _see(files: Sequence[bytes], backbone: Backbone, what: str) -> Seen:
    spec, features, statistics = backbone.pixels, [], []
    for start in track(range(0, len(files), IMAGE_BATCH), f"Encoding {what}"):
        some = files[start : start + IMAGE_BATCH]
        pixels = [to_pixels(data, View(), spec.size, spec.interpolation) for data in some]
        features.append(backbone.encode_images(torch.from_numpy(np.stack(pixels))).numpy())
        statistics += [photograph_statistics(image) for image in pixels]
    return Seen(np.concatenate(features), np.array(statistics, dtype=np.float32))
