"""What keeps a text-only tuner near what the backbone knew before: its guide.

Every text-only tuner is CoOp with a term that speaks for the hand-written prompts. They differ in
that term and in how it acts: added to the loss, or allowed to correct the gradient.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.backbone import Backbone
from models.methods.cpt import CPT
from models.methods.kgcoop import KgCoOp
from models.methods.prograd import ProGrad
from models.recipe import Recipe
from models.training_set import TrainingSet


@runtime_checkable
class Guide(Protocol):
    """One text-only tuner's addition to CoOp; it keeps no state from step to step."""

    def term(
        self, text: Float[Tensor, "n_classes embed_dim"], features: Float[Tensor, "b embed_dim"]
    ) -> Float[Tensor, ""]:
        """Return the guide's own loss.

        Args:
            text: text features of the prompts as they are now, not normalised.
            features: of the batch's images, L2-normalised.
        """

    def backward(self, loss: Float[Tensor, ""], term: Float[Tensor, ""], ctx: nn.Parameter) -> None:
        """Set the gradient of the context tokens from the loss and the guide's term."""


class Unguided:
    """CoOp: nothing but the loss."""

    def term(
        self, text: Float[Tensor, "n_classes embed_dim"], features: Float[Tensor, "b embed_dim"]
    ) -> Float[Tensor, ""]:
        """Return 0."""
        del features
        return text.new_zeros(())

    def backward(self, loss: Float[Tensor, ""], term: Float[Tensor, ""], ctx: nn.Parameter) -> None:
        """Descend on the loss."""
        del term
        ctx.grad = torch.autograd.grad(loss, ctx)[0]


def guide_of(recipe: Recipe, backbone: Backbone, data: TrainingSet) -> Guide:
    """Return the guide that the recipe names, for these classes and images."""
    if recipe.method == "kgcoop":
        return KgCoOp(backbone, data.prompt_names, recipe.guidance)
    if recipe.method == "prograd":
        return ProGrad(backbone, data.prompt_names, recipe.guidance)
    if recipe.method == "cpt":
        return CPT(backbone, data, recipe.guidance)
    return Unguided()
