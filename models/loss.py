"""The loss of prompt tuning: cross-entropy, the two collapse regularisers, logit adjustment."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.backbone import Backbone
from models.collapse import regularizers
from models.collapse.etf import fit_etf
from models.collapse.metrics import nc2, nc3
from models.methods.epoch_recipe import EpochRecipe
from models.recipe import Recipe
from models.training_set import TrainingSet


@dataclass(frozen=True)
class EpochRecord:
    """How the tuning stood at the last step of an epoch.

    `loss` is the total of `ce`, its cross-entropy, and the weighted regularisers; `lc` and `mi` are
    unweighted. `guide` is the term of the method's guide, which is no part of `loss`. `text_nc2`
    and `text_to_image_nc3` are of `models.collapse.metrics`.
    """

    epoch: int
    step: int
    loss: float
    ce: float
    lc: float
    mi: float
    guide: float
    text_nc2: float
    text_to_image_nc3: float


@dataclass(frozen=True)
class LossTerms:
    """The terms of the loss at one step; `text` and `means` are kept to measure collapse."""

    total: Float[Tensor, ""]
    ce: Float[Tensor, ""]
    lc: Float[Tensor, ""]
    mi: Float[Tensor, ""]
    text: Float[Tensor, "n_classes embed_dim"]
    means: Float[Tensor, "n_classes embed_dim"]

    @torch.no_grad()
    def record(self, epoch: int, step: int, guide: Float[Tensor, ""]) -> EpochRecord:
        """Return the terms, and that of the guide, as plain numbers."""
        values = {
            "loss": self.total,
            "ce": self.ce,
            "lc": self.lc,
            "mi": self.mi,
            "guide": guide,
            "text_nc2": nc2(self.text),
            "text_to_image_nc3": nc3(self.text, self.means),
        }
        return EpochRecord(
            epoch=epoch, step=step, **{name: float(value) for name, value in values.items()}
        )


class CollapseTerms:
    """What the training images and a recipe make of the loss of any tuner.

    Attributes:
        prior: `logit_adjustment * log(n_c / n)`, to be added to the logits in training.
    """

    def __init__(
        self, backbone: Backbone, data: TrainingSet, settings: Recipe | EpochRecipe
    ) -> None:
        counts = data.counts().to(backbone.device)
        # A class without images counts as if it had one: its logarithm must be a number.
        self.prior = settings.logit_adjustment * (counts.clamp_min(1) / counts.sum()).log()
        self._isomorphism = (
            regularizers.mi_point if settings.mi_form == "point" else regularizers.mi_gram
        )
        self._frame: Tensor | None = None
        if settings.lc_form == "anchored":
            phrase = "" if settings.ctx_init is None else f"{settings.ctx_init} "
            hand_written = backbone.encode_texts([f"{phrase}{n}." for n in data.prompt_names])
            self._frame = fit_etf(hand_written.to(backbone.device))

    def lc(self, text: Float[Tensor, "n_classes embed_dim"]) -> Float[Tensor, ""]:
        """Return LC, not weighted, of L2-normalised text features."""
        if self._frame is None:
            return regularizers.lc_gram(text)
        return regularizers.lc_anchored(text, self._frame)

    def mi(
        self,
        text: Float[Tensor, "n_classes embed_dim"],
        means: Float[Tensor, "n_classes embed_dim"],
        present: Bool[Tensor, " n_classes"],
    ) -> Float[Tensor, ""]:
        """Return MI, not weighted, of L2-normalised text features and class means."""
        return self._isomorphism(text, means, present)


class Loss:
    """`CE(s·v·t + w·log prior) + lc_weight·LC + mi_weight·MI` on the features of a training set."""

    def __init__(self, backbone: Backbone, data: TrainingSet, recipe: Recipe) -> None:
        features, labels = (x.to(backbone.device) for x in (data.features, data.labels))
        self._recipe, self._scale = recipe, backbone.logit_scale
        self._terms = CollapseTerms(backbone, data, recipe)
        self._present = data.counts().to(backbone.device) > 0
        self._means = regularizers.class_means(features, labels, data.n_classes)

    def __call__(
        self,
        text: Float[Tensor, "n_classes embed_dim"],
        features: Float[Tensor, "b embed_dim"],
        labels: Int[Tensor, " b"],
    ) -> LossTerms:
        """Return the loss of a batch of image features under the text features of all classes."""
        ce = cross_entropy(self._scale * features @ text.T + self._terms.prior, labels)
        lc, mi = self._terms.lc(text), self._terms.mi(text, self._means, self._present)
        total = ce + self._recipe.lc_weight * lc + self._recipe.mi_weight * mi
        return LossTerms(total, ce, lc, mi, text, self._means)
