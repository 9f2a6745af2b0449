"""PromptSRC: deep prompts that are held back to the frozen backbone.

Khattak et al., "Self-regulating Prompts: Foundational Model Adaptation without Forgetting", ICCV
2023. Reference code and settings: muzairkhattak/PromptSRC,
`PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx.yaml` (base-to-novel). It draws another crop of an image in
each epoch; here an image is the same in all of them, and its frozen features are those that the
training set holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import open_clip
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import kl_div, l1_loss, log_softmax, normalize

from models.backbone import Backbone
from models.methods.deep import DeepClassifier, PromptedTowers, Step, tune_deep
from models.methods.epoch_recipe import Depth, Epochs, LearningRate, Tokens, Weight
from models.methods.epochs import EpochEnd
from models.methods.ivlp import IVLPRecipe, independent_prompts, no_deeper
from models.threads import fixed_threads
from models.training_set import TrainingSet

# The reference's 60 templates, in another order.
N_TEMPLATES = 60


class PromptSRCRecipe(IVLPRecipe):
    """The published hyperparameters of PromptSRC, base-to-novel.

    Attributes:
        text_weight: weight of the distance to frozen text features.
        image_weight: weight of the distance to frozen image features.
        logit_weight: weight of the divergence from frozen logits.
        gpa_mean: the epoch that counts most in the average of the prompts; where there are fewer
            epochs, the last one does.
        gpa_std: how many epochs around it count.
    """

    n_ctx: Tokens = 4
    n_ctx_vision: Tokens = 4
    depth_text: Depth = 9
    depth_vision: Depth = 9
    epochs: Epochs = 20
    lr: LearningRate = 0.0025
    text_weight: Weight = 25.0
    image_weight: Weight = 10.0
    logit_weight: Weight = 1.0
    gpa_mean: float = 15.0
    gpa_std: Annotated[float, Field(gt=0)] = 1.0


@dataclass(frozen=True)
class PromptSRC:
    """IVLP held back to the frozen backbone, its prompts averaged over the epochs.

    For the collapse regularisers see `tune_deep`.

    Attributes:
        recipe: the hyperparameters.
        callbacks: called at the end of each epoch.
    """

    recipe: PromptSRCRecipe = field(default_factory=PromptSRCRecipe)
    callbacks: Sequence[EpochEnd] = ()

    @property
    def needs_pixels(self) -> bool:
        """Say yes: prompts change what the image tower computes."""
        return True

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> DeepClassifier:
        """Tune the prompts of both towers and average them.

        Raises:
            BadRecipe: no VisionTransformer, no pixels, or a tuning that diverged.
        """
        towers = PromptedTowers(backbone, "PromptSRC")
        recipe = no_deeper(self.recipe, towers)
        generator = torch.Generator().manual_seed(seed)
        prompts = independent_prompts(towers, data.prompt_names, recipe, generator)
        settings = {"method": "promptsrc", "seed": seed, **recipe.model_dump()}
        weights = gaussian_weights(recipe.epochs, recipe.gpa_mean, recipe.gpa_std)
        average = PromptAverage(prompts, weights)
        callbacks = [average.add, *self.callbacks]
        with fixed_threads(recipe.threads):
            extra = SelfConsistency(backbone, data, recipe)
            tune_deep(towers, prompts, data, recipe, generator, extra=extra, callbacks=callbacks)
            average.apply()
            return DeepClassifier(towers, prompts, settings)


class SelfConsistency:
    """`text_weight·|t - t0| + image_weight·|v - v0| + logit_weight·KL(p0 ‖ p) / K`.

    `|·|` is the mean over all entries of a difference; `t0` are the frozen text features, averaged
    over templates and then normalised, `v0` the frozen image features, and `p0` the softmax of
    their scaled cosines.
    """

    def __init__(self, backbone: Backbone, data: TrainingSet, recipe: PromptSRCRecipe) -> None:
        self._recipe, self._scale = recipe, backbone.logit_scale
        self._text = frozen_text_features(backbone, data.prompt_names)
        self._images = data.features.to(backbone.device)

    def __call__(self, step: Step) -> Float[Tensor, ""]:
        """Return the term of one batch."""
        image = self._images[step.batch.to(self._images.device)]
        frozen = log_softmax(self._scale * image @ self._text.T, dim=-1)
        prompted = log_softmax(step.logits, dim=-1)
        divergence = kl_div(prompted, frozen, reduction="sum", log_target=True) / frozen.numel()
        return (
            self._recipe.text_weight * l1_loss(step.text, self._text)
            + self._recipe.image_weight * l1_loss(step.image, image)
            + self._recipe.logit_weight * divergence
        )


@torch.no_grad()
def frozen_text_features(
    backbone: Backbone, prompt_names: Sequence[str]
) -> Float[Tensor, "n_classes embed_dim"]:
    """Return the L2-normalised mean of the unprompted text features over the templates."""
    features = []
    for template in open_clip.OPENAI_IMAGENET_TEMPLATES[:N_TEMPLATES]:
        tokens = backbone.tokenize([template(name) for name in prompt_names])
        features.append(backbone.text(backbone.text.embed(tokens.to(backbone.device))))
    return normalize(torch.stack(features).mean(dim=0), dim=-1)


def gaussian_weights(epochs: int, mean: float, std: float) -> Float[Tensor, " epochs"]:
    """Return `w_e ∝ exp(-(e - mean)² / (2·std²))` for e = 1 … epochs, of sum 1."""
    epoch = torch.arange(1, epochs + 1, dtype=torch.float64)
    # As a softmax: far from the mean the exponentials alone would all be 0.
    return torch.softmax(-((epoch - mean) ** 2) / (2 * std**2), dim=0)


class PromptAverage:
    """The weighted average of prompts over the epochs."""

    def __init__(self, prompts: nn.Module, weights: Float[Tensor, " epochs"]) -> None:
        self._weights = weights.tolist()
        self._parameters = list(prompts.parameters())
        self._sums = [torch.zeros_like(parameter) for parameter in self._parameters]

    @torch.no_grad()
    def add(self, epoch: int, loss: float) -> None:
        """Count the prompts as they are at the end of an epoch."""
        del loss
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            total.add_(parameter, alpha=self._weights[epoch - 1])

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average in place of the prompts."""
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            parameter.copy_(total)
