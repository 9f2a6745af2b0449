"""MaPLe: Khattak et al., "MaPLe: Multi-modal Prompt Learning", CVPR 2023.

Reference code and settings: muzairkhattak/multimodal-prompt-learning,
`MaPLe/vit_b16_c2_ep5_batch4_2ctx.yaml`. It draws another crop of an image in each epoch; here an
image is the same in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from models.backbone import Backbone
from models.methods.deep import DeepClassifier, PromptedTowers, tune_deep
from models.methods.epoch_recipe import Depth, EpochRecipe, Epochs, LearningRate, Tokens
from models.methods.epochs import EpochEnd
from models.prompts.maple import CoupledPrompts
from models.threads import fixed_threads
from models.training_set import TrainingSet


class MaPLeRecipe(EpochRecipe):
    """The published hyperparameters of MaPLe, base-to-novel.

    Attributes:
        n_ctx: number of prompt tokens in each tower.
        depth: layers of both towers that are prompted; as many as both have where one has fewer.
    """

    n_ctx: Tokens = 2
    depth: Depth = 9
    epochs: Epochs = 5
    lr: LearningRate = 0.0035


@dataclass(frozen=True)
class MaPLe:
    """Deep prompts of the text tower, and their projections as prompts of the image tower.

    For the collapse regularisers see `tune_deep`.

    Attributes:
        recipe: the hyperparameters.
        callbacks: called at the end of each epoch.
    """

    recipe: MaPLeRecipe = field(default_factory=MaPLeRecipe)
    callbacks: Sequence[EpochEnd] = ()

    @property
    def needs_pixels(self) -> bool:
        """Say yes: prompts change what the image tower computes."""
        return True

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> DeepClassifier:
        """Tune the text tower's prompts and their projections.

        Raises:
            BadRecipe: no VisionTransformer, no pixels, or a tuning that diverged.
        """
        towers = PromptedTowers(backbone, "MaPLe")
        depth = min(self.recipe.depth, backbone.text.n_layers, towers.vision.n_layers)
        recipe = self.recipe.model_copy(update={"depth": depth})
        generator = torch.Generator().manual_seed(seed)
        prompts = CoupledPrompts(
            backbone,
            data.prompt_names,
            recipe.n_ctx,
            recipe.ctx_init,
            recipe.depth,
            towers.vision.width,
            generator,
        )
        settings = {"method": "maple", "seed": seed, **recipe.model_dump()}
        with fixed_threads(recipe.threads):
            tune_deep(towers, prompts, data, recipe, generator, callbacks=self.callbacks)
            return DeepClassifier(towers, prompts, settings)
