"""CoCoOp: Zhou et al., "Conditional Prompt Learning for Vision-Language Models", CVPR 2022.

Reference code and settings: KaiyangZhou/CoOp, `CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml`. It draws
another crop of an image in each epoch; here an image is the same in all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.collapse.regularizers import class_means
from models.methods.collapse_loss import CollapseLoss
from models.methods.epoch_recipe import BatchSize, EpochRecipe
from models.methods.epochs import EpochEnd, run_epochs
from models.prompts.cocoop import ConditionalPrompts
from models.threads import fixed_threads
from models.training_set import Images, TrainingSet

# Images that are answered at once.
_BATCH = 64


class CoCoOpRecipe(EpochRecipe):
    """The published hyperparameters of CoCoOp."""

    batch_size: BatchSize = 1


@dataclass(frozen=True)
class CoCoOp:
    """A context that depends on the image; works on features, for only the text side depends on it.

    Each image has text features of its own: language-modality collapse and multi-modality
    isomorphism are averaged over the images of a batch. The class means are those of the whole
    training set, since image features are constant.

    Attributes:
        recipe: the hyperparameters.
        callbacks: called at the end of each epoch.
    """

    recipe: CoCoOpRecipe = field(default_factory=CoCoOpRecipe)
    callbacks: Sequence[EpochEnd] = ()

    @property
    def needs_pixels(self) -> bool:
        """Say no: the image tower stays as it is."""
        return False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> "ConditionalClassifier":
        """Tune context and meta-net.

        Raises:
            BadRecipe: see `unified_context` and `run_epochs`.
        """
        recipe, generator = self.recipe, torch.Generator().manual_seed(seed)
        prompts = ConditionalPrompts(
            backbone, data.prompt_names, recipe.n_ctx, recipe.ctx_init, generator
        )
        settings = {"method": "cocoop", "seed": seed, **recipe.model_dump()}
        with fixed_threads(recipe.threads):
            objective = _Objective(backbone, prompts, data, recipe)
            run_epochs(
                prompts.parameters(),
                objective,
                len(data.labels),
                recipe,
                generator,
                self.callbacks,
            )
            mean = normalize(data.features.mean(dim=0, keepdim=True), dim=-1)
            return ConditionalClassifier(backbone, prompts, mean, settings)


class _Objective:
    """The loss of the images at some indices."""

    def __init__(
        self,
        backbone: Backbone,
        prompts: ConditionalPrompts,
        data: TrainingSet,
        recipe: CoCoOpRecipe,
    ) -> None:
        self._backbone, self._prompts = backbone, prompts
        self._features, self._labels = (x.to(backbone.device) for x in (data.features, data.labels))
        self._loss = CollapseLoss(backbone, data, recipe)
        self._means = class_means(self._features, self._labels, data.n_classes)
        self._present = data.counts().to(backbone.device) > 0

    def __call__(self, batch: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        batch = batch.to(self._labels.device)
        images = self._features[batch]
        text = self._prompts.text_features(self._backbone, images)
        logits = _conditional_logits(self._backbone.logit_scale, images, text)
        return self._loss(logits, self._labels[batch], text, self._means, self._present)


class ConditionalClassifier:
    """A classifier whose text features depend on the image.

    Args:
        backbone: that the prompts were learnt for.
        prompts: as learnt.
        mean_image: the L2-normalised mean feature of the training images; what `text_features`
            stands for.
        settings: see `Classifier`.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: ConditionalPrompts,
        mean_image: Float[Tensor, "1 embed_dim"],
        settings: Mapping[str, Any],
    ) -> None:
        self.settings = settings
        self._backbone, self._prompts, self._mean_image = backbone, prompts, mean_image
        self._text_features = self._texts(mean_image)[0].cpu()

    @property
    def text_features(self) -> Float[Tensor, "n_classes embed_dim"]:
        """The text features that the mean training image would be decided with."""
        return self._text_features

    def image_features(self, images: Images) -> Float[Tensor, "n embed_dim"]:
        """Return the features as they are."""
        return images.features

    def logits(self, images: Images) -> Float[Tensor, "n n_classes"]:
        """Return scaled cosines between each image and the text features it calls forth."""
        if not len(images.features):
            return images.features @ self.text_features.T
        scale = self._backbone.logit_scale
        batches = images.features.split(_BATCH)
        logits = [_conditional_logits(scale, v, self._texts(v).cpu()) for v in batches]
        return torch.cat(logits)

    def renamed(self, prompt_names: Sequence[str]) -> "ConditionalClassifier":
        """Return the same context and meta-net around other class names."""
        prompts = self._prompts.renamed(self._backbone, prompt_names)
        return ConditionalClassifier(self._backbone, prompts, self._mean_image, self.settings)

    @torch.no_grad()
    def _texts(
        self, features: Float[Tensor, "b embed_dim"]
    ) -> Float[Tensor, "b n_classes embed_dim"]:
        return self._prompts.text_features(self._backbone, features.to(self._backbone.device))


def _conditional_logits(
    scale: float,
    images: Float[Tensor, "b embed_dim"],
    texts: Float[Tensor, "b n_classes embed_dim"],
) -> Float[Tensor, "b n_classes"]:
    """Return `scale * v_i·t_ic`, the text features of each image against that image alone."""
    return scale * (texts @ images.unsqueeze(-1)).squeeze(-1)
