"""The decision rule that an artifact carries: what its own calibration found. No torch here."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.classes import Role

# Limits are of no model class, and numbers in tuples: thousands stay in memory with the judges.
_STRICT = ConfigDict(extra="forbid")

Scales = tuple[float, float, float, float]  # of the statistics of photographs


@dataclass(frozen=True, slots=True)
class Limit:
    """Where values of one kind lie, and from where on one of them is too large.

    Attributes:
        middle: the median of the training images.
        limit: the largest that is still like them.
    """

    __pydantic_config__ = _STRICT

    middle: float
    limit: float


@dataclass(frozen=True, slots=True)
class OutlierRule:
    """From where on an image is unlike those that the model was tuned on.

    Attributes:
        level: about so large a share of good images each measure refuses.
        distance: of `1 - cosine` to the nearest class mean.
        energy: of the free energy `-log Σ exp(logit)`, in spreads around the fold's own middle,
            mean over the folds.
        energy_middles, energy_spreads: of each fold.
        photograph: of the distance to the nearest training photograph, see `models.trust.outliers`.
        photograph_scales: of the four statistics in it.
    """

    __pydantic_config__ = _STRICT

    level: float
    distance: Limit
    energy: Limit
    energy_middles: tuple[float, ...]
    energy_spreads: tuple[float, ...]
    photograph: Limit
    photograph_scales: Scales


class DecisionRule(BaseModel):
    """What turns an image's cosines into calibrated probabilities and a prediction set.

    Attributes:
        version: of the rule's form.
        temperature: logits are divided by it for the probabilities.
        folds: how many fold models the artifact carries, in `fold_embeddings`.
        scores: nonconformity scores of the calibration images, `scores[class][fold]`: one for each
            group of images, by the model of the fold that did not see it.
        role_scores: the same of each role, by its probability: `role_scores[role][fold]`.
        outliers: None where there were too few images to tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    temperature: float = Field(gt=0)
    folds: int = Field(ge=2)
    scores: list[list[list[float]]]
    role_scores: dict[Role, list[list[float]]]
    outliers: OutlierRule | None

    def groups(self, role: Role) -> int:
        """Return how many groups of images speak for a role; a budget needs enough of them."""
        return sum(len(fold) for fold in self.role_scores.get(role, []))
