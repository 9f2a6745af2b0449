"""Cross-entropy with logit adjustment and the collapse regularisers, for the tuners in epochs."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.backbone import Backbone
from models.loss import CollapseTerms
from models.methods.epoch_recipe import EpochRecipe
from models.training_set import TrainingSet


class CollapseLoss:
    """`CE(logits + w·log prior) + lc_weight·LC + mi_weight·MI`.

    As `models.loss.Loss`, but the caller says what the class means are, which may move, and the
    text features may depend on the image.
    """

    def __init__(self, backbone: Backbone, data: TrainingSet, recipe: EpochRecipe) -> None:
        self._recipe, self._terms = recipe, CollapseTerms(backbone, data, recipe)

    def __call__(
        self,
        logits: Float[Tensor, "b n_classes"],
        labels: Int[Tensor, " b"],
        texts: Iterable[Float[Tensor, "n_classes embed_dim"]],
        means: Float[Tensor, "n_classes embed_dim"],
        present: Bool[Tensor, " n_classes"],
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch.

        Args:
            logits: without adjustment.
            labels: of the same images.
            texts: L2-normalised text features, once for all images or once for each; the
                regularisers are averaged over them.
            means: L2-normalised class means of image features.
            present: the classes that have such a mean.
        """
        ce = cross_entropy(logits + self._terms.prior, labels)
        terms = [self._regularisers(text, means, present) for text in texts]
        return ce + torch.stack(terms).mean()

    def _regularisers(
        self,
        text: Float[Tensor, "n_classes embed_dim"],
        means: Float[Tensor, "n_classes embed_dim"],
        present: Bool[Tensor, " n_classes"],
    ) -> Float[Tensor, ""]:
        lc, mi = self._terms.lc(text), self._terms.mi(text, means, present)
        return self._recipe.lc_weight * lc + self._recipe.mi_weight * mi
