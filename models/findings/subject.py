"""What the checks look at: labelled images, what was measured of each, and their features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from models.dataset import LabelledImage
from models.errors import BadImage, ShotlineError
from models.findings.finding import NAMED, Finding, ImageRef, image_ref
from models.findings.trait_store import TraitStore
from models.findings.traits import Traits, measure
from models.language import Phrase, phrase
from models.progress import Progress, no_progress
from models.recipe import Recipe

Encode = Callable[[Sequence[LabelledImage]], Float[np.ndarray, "n embed_dim"]]


@dataclass(frozen=True)
class Subject:
    """A set of images that could all be read.

    Attributes:
        classes: names, in the order of the labels.
        images: labelled; here the same bytes may occur again, under another label too.
        traits: of each image.
        features: L2-normalised image features, `(n, embed_dim)`; None where there is no encoder.
        view_size: pixels per side that the encoder sees.
        recipe: what they would be tuned with.
        unreadable: what is said of the files that could not be read.
    """

    classes: Sequence[str]
    images: Sequence[LabelledImage]
    traits: Sequence[Traits]
    features: Float[np.ndarray, "n embed_dim"] | None = None
    view_size: int | None = None
    recipe: Recipe = field(default_factory=Recipe)
    unreadable: Sequence[Finding] = ()

    @cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Index of the class of each image."""
        return np.array([image.label for image in self.images], dtype=np.int64)

    @cached_property
    def groups(self) -> Int[np.ndarray, " n"]:
        """A number for each image, equal within a group."""
        return np.unique([image.group for image in self.images], return_inverse=True)[1]

    @cached_property
    def train(self) -> Bool[np.ndarray, " n"]:
        """Which images are for training."""
        return np.array([image.split == "train" for image in self.images], dtype=bool)

    def refs(self, indices: Sequence[int] | Int[np.ndarray, " m"]) -> list[ImageRef]:
        """Return what a finding says of the images at `indices`, `NAMED` at most."""
        return [image_ref(self.images[index], self.classes) for index in indices[:NAMED]]

    def named(self, index: int) -> Phrase:
        """Return what people call the image, and its class."""
        image = self.images[index]
        return phrase("finding.image", name=image.name, label=self.classes[image.label])

    def norms(self, values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2"]:
        """Return the median and the spread that each image's value is compared with.

        Those of its class, where that has `_ENOUGH` images, else of all. The spread is 1.48 times
        the median deviation, the standard deviation of a normal distribution.
        """
        whole = _norm(values)
        result = np.tile(whole, (len(values), 1))
        for label in range(len(self.classes)):
            own = self.labels == label
            if own.sum() >= _ENOUGH:
                result[own] = _norm(values[own])
        return result


_ENOUGH = 8


def _norm(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    if not len(values):
        return 0.0, 0.0
    median = float(np.median(values))
    return median, 1.4826 * float(np.median(np.abs(values - median)))


def look_at(
    classes: Sequence[str],
    images: Sequence[LabelledImage],
    store: TraitStore,
    *,
    encode: Encode | None = None,
    view_size: int | None = None,
    recipe: Recipe | None = None,
    progress: Progress = no_progress,
) -> Subject:
    """Measure every image, and encode those that can be read.

    Args:
        classes: their names, in the order of the labels.
        images: of any number, also such as no tuning would take.
        store: of what was measured earlier.
        encode: returns the features of images; None does without.
        view_size: pixels per side that the encoder sees.
        recipe: what they would be tuned with; the default one where it is not given.
        progress: called with how many of how many images are measured; may raise to stop.
    """
    known = {it.sha256: found for it in images if (found := _known(it, store)) is not None}
    done = sum(image.sha256 in known for image in images)
    progress(done, len(images))
    good: list[LabelledImage] = []
    traits: list[Traits] = []
    unreadable: list[Finding] = []
    for image in images:
        if (found := known.get(image.sha256)) is None:
            try:
                found = measure(image.read())
            except (ShotlineError, OSError) as error:
                unreadable.append(_unreadable(image, classes, error))
            else:
                store.put(image.sha256, found)
            done += 1
            progress(done, len(images))
        if found is not None:
            good.append(image)
            traits.append(found)
    features = encode(good) if encode is not None and good else None
    return Subject(classes, good, traits, features, view_size, recipe or Recipe(), unreadable)


def _known(image: LabelledImage, store: TraitStore) -> Traits | None:
    return store.get(image.sha256) if image.sha256 else None


def _unreadable(image: LabelledImage, classes: Sequence[str], error: Exception) -> Finding:
    fault = error.fault if isinstance(error, BadImage) else "closed"
    says = phrase("finding.unreadable.closed", name=image.name, error=type(error).__name__)
    if fault != "closed":
        says = phrase(f"finding.unreadable.{fault}", name=image.name)
    return Finding.told(
        [says],
        [phrase(f"fix.unreadable.{fault}")],
        kind="unreadable",
        severity="serious",
        images=[image_ref(image, classes)],
        count=1,
        classes=[classes[image.label]],
        score=1.0,
    )
