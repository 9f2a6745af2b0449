"""A classifier tuned from nothing on some images, for whoever only wants to know how it does."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from models.backbone import Backbone
from models.fusion import Texts, fused_embeddings
from models.loss import EpochRecord
from models.recipe import Recipe
from models.training_set import TrainingSet
from models.tuner import Tuner


def tuned_embeddings(
    backbone: Backbone,
    data: TrainingSet,
    recipe: Recipe,
    seed: int,
    written: Float[Tensor, "n_classes dim"],
    on_epoch: Callable[[int], None],
) -> Float[Tensor, "n_classes dim"]:
    """Tune prompts and return the class embeddings that a prediction multiplies with.

    Args:
        backbone: frozen.
        data: the training images.
        recipe: the hyperparameters.
        seed: of the initial context and the batches.
        written: text features of the hand-written prompts.
        on_epoch: told after each epoch how many steps are done; may raise to end the tuning.

    Raises:
        BadRecipe: the recipe does not fit the classes, or diverged.
    """
    generator = torch.Generator().manual_seed(seed)
    tuner = Tuner(backbone, data, recipe, generator, callbacks=[_Epochs(on_epoch)])
    return fused_embeddings(Texts(tuner.run(), written), data, recipe, backbone.logit_scale)


class _Epochs:
    """A tuner's callback that only says how many steps are done."""

    def __init__(self, call: Callable[[int], None]) -> None:
        self._call = call

    def on_epoch(self, tuner: Tuner, record: EpochRecord) -> None:
        del record
        self._call(tuner.step)
