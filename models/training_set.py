"""What a classifier is learnt from, and what it is asked about."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

# Returns the pixels of the images at these indices, as `models.pixels.to_pixels` gives them.
PixelReader = Callable[[Int[Tensor, " b"]], UInt8[Tensor, "b 3 size size"]]


@dataclass(frozen=True)
class TrainingSet:
    """What prompts are tuned on.

    Attributes:
        prompt_names: one English name per class.
        features: L2-normalised image features, `(n, embed_dim)`.
        labels: class indices, `(n,)`.
        groups: of each image; images of one group stay together in a split. Where they are not
            given, each image is a group of its own.
        pixels: for methods that prompt the image tower, and cannot live on features.
    """

    prompt_names: list[str]
    features: Float[Tensor, "n embed_dim"]
    labels: Int[Tensor, " n"]
    groups: Sequence[str] | None = None
    pixels: PixelReader | None = None

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.prompt_names)

    def subset(self, indices: Sequence[int]) -> "TrainingSet":
        """Return the images at these indices, without their pixels; all classes stay."""
        chosen = list(indices)
        groups = None if self.groups is None else [self.groups[index] for index in chosen]
        return TrainingSet(self.prompt_names, self.features[chosen], self.labels[chosen], groups)

    def counts(self) -> Int[Tensor, " n_classes"]:
        """Return the number of images of each class."""
        return torch.bincount(self.labels, minlength=self.n_classes)


@dataclass(frozen=True)
class Images:
    """What a classifier is asked about.

    Attributes:
        features: L2-normalised image features, `(n, embed_dim)`.
        pixels: for classifiers that prompt the image tower.
    """

    features: Float[Tensor, "n embed_dim"]
    pixels: PixelReader | None = None
