"""Cross-entropy with logit adjustment and the collapse regularisers, for the tuners in epochs."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from models.backbone import Backbone
from models.collapse import regularizers
from models.collapse.etf import fit_etf
from models.methods.epoch_recipe import EpochRecipe
from models.training_set import TrainingSet


class CollapseLoss:
    """`CE(logits + w·log prior) + lc_weight·LC + mi_weight·MI`.

    `models.loss.Loss` says the same of constant image features and one text feature per class; here
    the caller says what the class means are, and the text features may depend on the image.
    """

    def __init__(self, backbone: Backbone, data: TrainingSet, recipe: EpochRecipe) -> None:
        counts = data.counts().to(backbone.device)
        self._recipe = recipe
        # A class without images counts as if it had one: its logarithm must be a number.
        self._prior = recipe.logit_adjustment * (counts.clamp_min(1) / counts.sum()).log()
        self._frame: Tensor | None = None
        if recipe.lc_form == "anchored":
            phrase = "" if recipe.ctx_init is None else f"{recipe.ctx_init} "
            hand_written = backbone.encode_texts([f"{phrase}{n}." for n in data.prompt_names])
            self._frame = fit_etf(hand_written.to(backbone.device))

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
        ce = cross_entropy(logits + self._prior, labels)
        terms = [self._regularisers(text, means, present) for text in texts]
        return ce + torch.stack(terms).mean()

    def _regularisers(
        self,
        text: Float[Tensor, "n_classes embed_dim"],
        means: Float[Tensor, "n_classes embed_dim"],
        present: Bool[Tensor, " n_classes"],
    ) -> Float[Tensor, ""]:
        recipe = self._recipe
        lc = (
            regularizers.lc_gram(text)
            if self._frame is None
            else regularizers.lc_anchored(text, self._frame)
        )
        isomorphism = regularizers.mi_point if recipe.mi_form == "point" else regularizers.mi_gram
        return recipe.lc_weight * lc + recipe.mi_weight * isomorphism(text, means, present)
