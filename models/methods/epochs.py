"""The training loop of the tuners that are run in epochs."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.errors import BadRecipe
from models.methods.epoch_recipe import EpochRecipe

WARMUP_LR = 1e-5

# The loss of the images at these indices.
Objective = Callable[[Int[Tensor, " b"]], Float[Tensor, ""]]
# Called at the end of each epoch with its number, from 1, and its mean loss; may raise `Cancelled`.
EpochEnd = Callable[[int, float], None]


def run_epochs(
    parameters: Iterable[nn.Parameter],
    objective: Objective,
    n_images: int,
    recipe: EpochRecipe,
    generator: torch.Generator,
    callbacks: Sequence[EpochEnd] = (),
) -> None:
    """Minimise `objective` over batches of `n_images` images, drawn by `generator`.

    Raises:
        BadRecipe: the loss or what is learnt grew beyond all numbers.
    """
    optimizer = torch.optim.SGD(
        parameters, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    for epoch in range(1, recipe.epochs + 1):
        optimizer.param_groups[0]["lr"] = learning_rate(recipe, epoch)
        order = torch.randperm(n_images, generator=generator)
        losses = []
        for batch in order.split(recipe.batch_size)[: recipe.steps_per_epoch]:
            loss = objective(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())
        if not (math.isfinite(mean) and _all_finite(optimizer)):
            raise _diverged(mean, epoch, recipe)
        for callback in callbacks:
            callback(epoch, mean)


def learning_rate(recipe: EpochRecipe, epoch: int) -> float:
    """Return Dassl's: constant warm-up, then a cosine, changed only between epochs.

    The cosine starts after the warm-up and has the length of all epochs: it does not reach 0.
    """
    if epoch <= recipe.warmup_epochs:
        return WARMUP_LR
    done = (epoch - 1 - recipe.warmup_epochs) / recipe.epochs
    return recipe.lr * (1 + math.cos(math.pi * done)) / 2


def _all_finite(optimizer: torch.optim.SGD) -> bool:
    return all(bool(p.isfinite().all()) for p in optimizer.param_groups[0]["params"])


def _diverged(loss: float, epoch: int, recipe: EpochRecipe) -> BadRecipe:
    return BadRecipe(
        f"The tuning diverged: the mean loss of epoch {epoch} is {loss} with lr {recipe.lr}.",
        fix="Lower lr, weight_decay or the weights of the regularisers.",
        field="lr",
    )
