"""IVLP: independent vision-language prompting, the baseline of MaPLe and the base of PromptSRC.

Khattak et al., "MaPLe: Multi-modal Prompt Learning", CVPR 2023. Reference code and settings:
muzairkhattak/multimodal-prompt-learning, `IVLP/vit_b16_c2_ep5_batch4_2+2ctx.yaml`. It draws another
crop of an image in each epoch; here an image is the same in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from models.backbone import Backbone
from models.methods.deep import DeepClassifier, PromptedTowers, tune_deep
from models.methods.epoch_recipe import Depth, EpochRecipe, Epochs, LearningRate, Tokens
from models.methods.epochs import EpochEnd
from models.prompts.ivlp import IndependentPrompts, TokenGrid
from models.threads import fixed_threads
from models.training_set import TrainingSet


class IVLPRecipe(EpochRecipe):
    """The published hyperparameters of IVLP, base-to-novel.

    PromptSRC's repository has others: 4 tokens, depth 9, 20 epochs, learning rate 0.0025.

    Attributes:
        n_ctx_vision: number of prompt tokens of the image tower.
        depth_text: layers of the text tower that are prompted; all where it has fewer.
        depth_vision: layers of the image tower that are prompted; all where it has fewer.
    """

    n_ctx: Tokens = 2
    n_ctx_vision: Tokens = 2
    depth_text: Depth = 12
    depth_vision: Depth = 12
    epochs: Epochs = 5
    lr: LearningRate = 0.0035


RecipeT = TypeVar("RecipeT", bound=IVLPRecipe)


@dataclass(frozen=True)
class IVLP:
    """Deep prompts in both towers that know nothing of each other.

    For the collapse regularisers see `tune_deep`.

    Attributes:
        recipe: the hyperparameters.
        callbacks: called at the end of each epoch.
    """

    recipe: IVLPRecipe = field(default_factory=IVLPRecipe)
    callbacks: Sequence[EpochEnd] = ()

    @property
    def needs_pixels(self) -> bool:
        """Say yes: prompts change what the image tower computes."""
        return True

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> DeepClassifier:
        """Tune the prompts of both towers.

        Raises:
            BadRecipe: no VisionTransformer, no pixels, or a tuning that diverged.
        """
        towers = PromptedTowers(backbone, "IVLP")
        recipe = no_deeper(self.recipe, towers)
        generator = torch.Generator().manual_seed(seed)
        prompts = independent_prompts(towers, data.prompt_names, recipe, generator)
        settings = {"method": "ivlp", "seed": seed, **recipe.model_dump()}
        with fixed_threads(recipe.threads):
            tune_deep(towers, prompts, data, recipe, generator, callbacks=self.callbacks)
            return DeepClassifier(towers, prompts, settings)


def no_deeper(recipe: RecipeT, towers: PromptedTowers) -> RecipeT:
    """Return the recipe with depths that the towers have."""
    depths = {
        "depth_text": min(recipe.depth_text, towers.backbone.text.n_layers),
        "depth_vision": min(recipe.depth_vision, towers.vision.n_layers),
    }
    return recipe.model_copy(update=depths)


def independent_prompts(
    towers: PromptedTowers,
    prompt_names: Sequence[str],
    recipe: IVLPRecipe,
    generator: torch.Generator,
) -> IndependentPrompts:
    """Return the prompts that a tuning starts from."""
    return IndependentPrompts(
        towers.backbone,
        prompt_names,
        recipe.ctx_init,
        TokenGrid(recipe.n_ctx, recipe.depth_text),
        TokenGrid(recipe.n_ctx_vision, recipe.depth_vision),
        towers.vision.width,
        generator,
    )
