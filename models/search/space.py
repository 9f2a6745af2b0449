"""The search space: which hyperparameters are searched, and where."""

from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from models.recipe import Recipe
from models.search.result import Value


@runtime_checkable
class Dimension(Protocol):
    """Where one hyperparameter is searched."""

    def distribution(self) -> Any:
        """Return the same for Optuna, which is imported then and not before."""
        ...


class OneOf:
    """One of a few values."""

    def __init__(self, *values: Value) -> None:
        self.values = values

    def distribution(self) -> Any:
        """Return the same for Optuna."""
        from optuna.distributions import CategoricalDistribution  # noqa: PLC0415 - slow to import

        return CategoricalDistribution(self.values)


class Between:
    """A number between two others; by its logarithm where it has no step."""

    def __init__(self, low: float, high: float, step: float | None = None) -> None:
        self.low, self.high, self.step = low, high, step

    def distribution(self) -> Any:
        """Return the same for Optuna."""
        from optuna.distributions import FloatDistribution  # noqa: PLC0415 - slow to import

        return FloatDistribution(self.low, self.high, step=self.step, log=self.step is None)


Space = Mapping[str, Dimension]

# `auto` lies in it. Weights of the regularisers are searched from 0: two classes need that, and so
# does the classifier of `auto`, to which neither adds (ADR 007).
SPACE: Final[Space] = {
    "method": OneOf("kgcoop", "coop", "prograd", "cpt"),
    "guidance": Between(0.1, 10.0),
    "n_ctx": OneOf(4, 8, 16),
    "class_specific": OneOf(False, True),
    "lr": Between(0.02, 1.0),
    "steps": OneOf(50, 100, 200, 400),
    "lc_weight": OneOf(0.0, 0.1, 0.3, 1.0, 3.0),
    "mi_weight": OneOf(0.0, 0.3, 1.0, 3.0, 5.0),
    "logit_adjustment": Between(0.0, 2.0, 0.25),
    "fusion": OneOf("posterior", "mean"),
    "prior_images": Between(0.03125, 4.0),
    "caution": Between(0.0, 24.0, 1.0),
    "alpha": Between(0.0, 2.0, 0.25),
}


def space_of(fixed: Collection[str]) -> Space:
    """Return what is searched where the hyperparameters named in `fixed` are not."""
    return {name: where for name, where in SPACE.items() if name not in fixed}


def recipe_of(params: Mapping[str, Value], fixed: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a trial.

    Raises:
        BadRecipe: values that do not go together.
    """
    return Recipe.read({**fixed, **params})


def params_of(recipe: Recipe, space: Space) -> dict[str, Value]:
    """Return what a recipe has where it is searched."""
    return {name: getattr(recipe, name) for name in space}
