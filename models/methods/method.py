"""The one protocol of tuners and baselines: from a few labelled images to a classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from models.backbone import Backbone
from models.training_set import Images, TrainingSet


@runtime_checkable
class Classifier(Protocol):
    """What a method has learnt."""

    @property
    def text_features(self) -> Float[Tensor, "n_classes embed_dim"] | None:
        """The L2-normalised text features that it decides with; `None` where it reads no text."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The hyperparameters that it was learnt with; JSON can hold them."""

    def image_features(self, images: Images) -> Float[Tensor, "n embed_dim"]:
        """Return the L2-normalised features of the images as this classifier sees them."""

    def logits(self, images: Images) -> Float[Tensor, "n n_classes"]:
        """Return the logits of the images; their softmax are the probabilities."""

    def renamed(self, prompt_names: Sequence[str]) -> "Classifier | None":
        """Return a classifier of other classes, known by their names alone.

        `None` where the method knows nothing but the classes that it has seen images of.
        """


@runtime_checkable
class Method(Protocol):
    """A way from a few labelled images to a classifier."""

    @property
    def needs_pixels(self) -> bool:
        """Say whether it works on pixels, since it changes what the image tower computes."""

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Classifier:
        """Learn from labelled images; the same seed gives the same classifier on a CPU.

        Raises:
            BadRecipe: the method does not fit the backbone or the classes.
        """


@dataclass(frozen=True)
class Linear:
    """A classifier on unchanged image features: `scale * v @ embeddings.T + bias`.

    Attributes:
        embeddings: one row per class.
        scale: in front of the products.
        bias: added to the logits; none where it is `None`.
        text_features: see `Classifier`.
        settings: see `Classifier`.
    """

    embeddings: Float[Tensor, "n_classes embed_dim"]
    scale: float = 1.0
    bias: Float[Tensor, " n_classes"] | None = None
    text_features: Float[Tensor, "n_classes embed_dim"] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def image_features(self, images: Images) -> Float[Tensor, "n embed_dim"]:
        """Return the features as they are."""
        return images.features

    def logits(self, images: Images) -> Float[Tensor, "n n_classes"]:
        """Return scaled products with the embeddings."""
        logits = self.scale * images.features @ self.embeddings.T
        return logits if self.bias is None else logits + self.bias

    def renamed(self, prompt_names: Sequence[str]) -> None:
        """Know nothing of classes that no image was seen of."""
        del prompt_names


def probabilities(classifier: Classifier, images: Images) -> Float[Tensor, "n n_classes"]:
    """Return the softmax of the logits."""
    return torch.softmax(classifier.logits(images), dim=-1)
