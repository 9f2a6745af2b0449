"""Tip-Adapter: zero-shot, and a cache of the training features beside it; nothing is trained.

Zhang et al., "Tip-Adapter: training-free adaption of CLIP for few-shot classification", ECCV 2022;
gaopengcuhk/Tip-Adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from models.backbone import Backbone
from models.baselines.zero_shot import TEMPLATES, Templates, zero_shot
from models.training_set import Images, TrainingSet


@dataclass(frozen=True)
class TipAdapter:
    """`s * v @ t.T + alpha * exp(-beta * (1 - v @ keys.T)) @ values`.

    The keys are the training features, the values their labels as one-hot rows. Two things are not
    as published: the code searches alpha and beta on validation images, of which we have none, so
    that they stay at the values of the paper's ablation on ImageNet; and it averages keys over ten
    augmented views, where we have the features of the images as they are. Where zero-shot is near
    chance, a fixed alpha leaves the text too strong: expect less than of a nearest class mean.

    Attributes:
        alpha: weight of the cache.
        beta: how sharply it looks only at what is near.
        templates: of the text features `t`.
    """

    alpha: float = 1.0
    beta: float = 5.5
    templates: Templates = TEMPLATES
    needs_pixels: ClassVar[bool] = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> "Cache":
        """Put the training set into the cache."""
        del seed
        return Cache(
            keys=data.features,
            values=one_hot(data.labels, data.n_classes).float(),
            text_features=zero_shot(backbone, data.prompt_names, self.templates),
            scale=backbone.logit_scale,
            alpha=self.alpha,
            beta=self.beta,
            settings=asdict(self),
        )


@dataclass(frozen=True)
class Cache:
    """A classifier of text features and a cache; see `TipAdapter` for the formula."""

    keys: Float[Tensor, "n_keys embed_dim"]
    values: Float[Tensor, "n_keys n_classes"]
    text_features: Float[Tensor, "n_classes embed_dim"]
    scale: float
    alpha: float
    beta: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    def image_features(self, images: Images) -> Float[Tensor, "n embed_dim"]:
        """Return the features as they are."""
        return images.features

    def logits(self, images: Images) -> Float[Tensor, "n n_classes"]:
        """Return the logits of the text and those of the cache together."""
        affinity = torch.exp(-self.beta * (1 - images.features @ self.keys.T))
        text = self.scale * images.features @ self.text_features.T
        return text + self.alpha * affinity @ self.values

    def renamed(self, prompt_names: Sequence[str]) -> None:
        """Know nothing of classes that no image was seen of."""
        del prompt_names
