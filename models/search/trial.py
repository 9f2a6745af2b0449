"""One trial: a recipe's cross-validation inside the training images, fold by fold."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.backbone import Backbone
from models.baselines.zero_shot import zero_shot
from models.chunks import Chunks, smaller
from models.decision import class_probabilities
from models.errors import OutOfMemory
from models.evaluation.splits import recipe_folds
from models.faults import fault_of
from models.recipe import Recipe
from models.text_encoder import CHUNK
from models.threads import fixed_threads
from models.training_set import TrainingSet
from models.tuned_embeddings import tuned_embeddings

# Of a log-loss: one image that is surely wrong is not worth more than this.
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Outcome:
    """What a trial came to.

    Attributes:
        folds: macro accuracy of the images tested so far, after each fold.
        macro: of all of them; `None` where the trial was ended before the last fold.
        log_loss: mean negative log-probability of the right class, every class with one weight.
        right: whether each image was predicted right.
    """

    folds: list[float]
    macro: float | None = None
    log_loss: float | None = None
    right: tuple[bool, ...] = ()


class Trials:
    """Runs trials on one training set.

    Args:
        backbone: frozen.
        data: the training images, of which each class has at least two groups.
        seed: of the tuning. The folds are drawn from another one, so that the recipe is not chosen
            on the very folds that its result is measured on.
    """

    def __init__(self, backbone: Backbone, data: TrainingSet, seed: int) -> None:
        self._backbone, self._data, self._seed = backbone, data, seed
        self._chunks = Chunks()

    def run(
        self,
        recipe: Recipe,
        *,
        go_on: Callable[[list[float]], bool] = lambda _: True,
        on_epoch: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Tune on all folds but one, predict that one, and so on.

        Where the device runs out of memory, the trial starts again in smaller pieces.

        Args:
            recipe: what is tried.
            go_on: asked after each fold but the last, with what `Outcome.folds` is then.
            on_epoch: called after each epoch; may raise to end the trial.

        Raises:
            BadRecipe: the recipe does not fit the classes, or diverged.
            OutOfMemory: one class at a time is still too much.
        """
        while True:
            try:
                with fixed_threads(recipe.threads), self._backbone.in_chunks(self._chunks):
                    return self._run(recipe, go_on, on_epoch)
            except Exception as error:
                if fault_of(error) != "memory":
                    raise
                self._chunks = self._smaller(error)
            torch.cuda.empty_cache()

    def _run(
        self,
        recipe: Recipe,
        go_on: Callable[[list[float]], bool],
        on_epoch: Callable[[], None],
    ) -> Outcome:
        data = self._data
        pairs = recipe_folds(data, recipe, self._seed + 1)
        probabilities = torch.zeros(len(data.labels), data.n_classes)
        tested = torch.zeros(len(data.labels), dtype=torch.bool)
        folds: list[float] = []
        for train, test in pairs:
            if folds and not go_on(folds):
                return Outcome(folds)
            embeddings = tuned_embeddings(
                self._backbone,
                data.subset(train),
                recipe,
                self._seed,
                self._written,
                lambda _: on_epoch(),
            )
            probabilities[test] = self._probabilities(data.features[test], embeddings)
            tested[test] = True
            folds.append(self._macro(probabilities, tested))
        right = probabilities.argmax(dim=1) == data.labels
        return Outcome(folds, folds[-1], self._log_loss(probabilities), tuple(right.tolist()))

    @cached_property
    def _written(self) -> Float[Tensor, "n_classes dim"]:
        return zero_shot(self._backbone, self._data.prompt_names)

    def _probabilities(
        self, features: Float[Tensor, "n dim"], embeddings: Float[Tensor, "n_classes dim"]
    ) -> Float[Tensor, "n n_classes"]:
        scale = self._backbone.logit_scale
        return torch.from_numpy(class_probabilities(features.numpy(), embeddings.numpy(), scale))

    def _macro(
        self, probabilities: Float[Tensor, "n n_classes"], tested: Bool[Tensor, " n"]
    ) -> float:
        labels = self._data.labels[tested]
        right = (probabilities[tested].argmax(dim=1) == labels).double()
        return float(_class_means(right, labels).mean())

    def _log_loss(self, probabilities: Float[Tensor, "n n_classes"]) -> float:
        labels = self._data.labels
        own = probabilities.gather(1, labels[:, None])[:, 0].double().clamp_min(_LEAST_PROBABILITY)
        return float(_class_means(-own.log(), labels).mean())

    def _smaller(self, error: Exception) -> Chunks:
        size = smaller(min(self._chunks.texts or CHUNK, self._data.n_classes))
        if size is None:
            raise OutOfMemory(
                "The device ran out of memory in a trial, even with one class at a time.",
                fix="Free the device of other work, or use a smaller backbone.",
            ) from error
        return Chunks(texts=size)


def _class_means(values: Float[Tensor, " n"], labels: Tensor) -> Float[Tensor, " present"]:
    """Return the mean of each class that is there."""
    counts = torch.bincount(labels)
    sums = torch.zeros(len(counts), dtype=values.dtype).index_add_(0, labels, values)
    return sums[counts > 0] / counts[counts > 0]


def folds_of(data: TrainingSet, recipe: Recipe) -> int:
    """Return how many folds a trial has."""
    return len(recipe_folds(data, recipe, seed=0))
