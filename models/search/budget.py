"""What a search may spend, and what it is to leave alone."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.classes import ClassSpec
from models.dataset import LabelledImage
from models.errors import BadDataset, BadRecipe
from models.recipe import Recipe
from models.search.space import space_of

MAX_MINUTES = 300.0
MAX_TRIALS = 1000
_SHOWN = 100


class SearchBudget(BaseModel):
    """The bounds of a search.

    Attributes:
        minutes: of wall time while any worker is at it; what is under way then is stopped, but
            `auto`, which all others are compared with, is always tried to its end.
        trials: at most so many recipes, `auto` among them.
        fixed: hyperparameters that are not searched but given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: float = 10.0
    trials: int | None = None
    fixed: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def read(cls, values: dict[str, Any] | None = None) -> "SearchBudget":
        """Validate what came from outside.

        Raises:
            BadRecipe: a budget that is none, or beyond all sense; an unknown field; a
                hyperparameter out of range, or none left to search.
        """
        try:
            budget = cls.model_validate(values or {})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(["search", *(str(part) for part in first["loc"])])
            raise BadRecipe(
                f"{field} is {repr(first['input'])[:_SHOWN]}: {first['msg']}.",
                fix=f"Known fields: {', '.join(cls.model_fields)}.",
                field=field,
            ) from error
        budget._check()
        return budget

    @property
    def auto(self) -> Recipe:
        """The first recipe that is tried: the default one, but for what is fixed."""
        return Recipe.read(self.fixed)

    def _check(self) -> None:
        if not 0 < self.minutes <= MAX_MINUTES:
            raise BadRecipe(
                f"The search has a budget of {self.minutes:g} minutes; more than 0 and at most"
                f" {MAX_MINUTES:g} are possible.",
                fix="Give it 10 minutes or more; each trial takes about as long as a tuning.",
                field="search.minutes",
            )
        if self.trials is not None and not 1 <= self.trials <= MAX_TRIALS:
            raise BadRecipe(
                f"The search has a budget of {self.trials} trials; 1 to {MAX_TRIALS} are possible.",
                fix="Leave `trials` out to be bounded by the minutes alone.",
                field="search.trials",
            )
        self.auto  # noqa: B018 - refuses what is no recipe
        if not space_of(self.fixed):
            raise BadRecipe(
                "Every hyperparameter that could be searched is fixed.",
                fix="Leave some of them out of `fixed`, or give them as the recipe itself.",
                field="search.fixed",
            )


def check_searchable(classes: Sequence[ClassSpec], images: Sequence[LabelledImage]) -> None:
    """Refuse training images that no recipe can be cross-validated on.

    Raises:
        BadDataset: a class with training images of fewer than two parts.
    """
    for label, spec in enumerate(classes):
        own = [image for image in images if image.label == label and image.split == "train"]
        groups = len({image.group for image in own})
        if groups < 2:
            raise BadDataset(
                f"The class {spec.name!r} has {len(own)} training image(s) of {groups} part(s); a"
                " search compares recipes inside the training images and needs at least 2 parts.",
                fix=f"Add photographs of {spec.name!r}, or tune with the recipe `auto`.",
                field=spec.name,
            )
