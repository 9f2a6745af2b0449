"""What a contest between versions found, as values. No torch here: the gateway judges by them."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict

from models.evaluation.results import Basis, Evaluation, Proportion

_LOW_SHARE = 0.05

OpponentName = Literal["production", "zero-shot", "linear-probe"]


class Difference(BaseModel):
    """A difference of macro accuracies with its 95 % interval, see `models.evaluation.paired`."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class Opponent(BaseModel):
    """What a version was compared with.

    Attributes:
        name: what is in production, the backbone without tuning, or a linear probe on the version's
            own training images.
        macro: its macro accuracy on the same images.
        difference: the version's macro accuracy less this one, image by image.
    """

    model_config = ConfigDict(frozen=True)

    name: OpponentName
    macro: Proportion
    difference: Difference


class Confidence(BaseModel):
    """How sure a version is on images that it was not tuned on; drift is told by it.

    Attributes:
        images: how many there were.
        mean_probability: of the most probable class, with its standard deviation beside it.
        undecidable: share of the images whose most probable class has the role `other`.
        low_probability: one image in twenty is less sure than this.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    mean_probability: float
    deviation: float
    undecidable: float
    low_probability: float

    @classmethod
    def of(
        cls, probabilities: Float[np.ndarray, " n"], undecidable: Bool[np.ndarray, " n"]
    ) -> "Confidence":
        """Sum up images: the probability of each one's class, and whether it was undecidable."""
        return cls(
            images=len(probabilities),
            mean_probability=float(probabilities.mean()),
            deviation=float(probabilities.std()),
            undecidable=float(undecidable.mean()),
            low_probability=float(np.quantile(probabilities, _LOW_SHARE)),
        )


class GateResult(BaseModel):
    """A version measured against what it is to replace.

    Attributes:
        basis: `holdout`: images that neither was tuned on; `out-of-fold`: both recipes tuned again
            without the images that they then predict.
        groups: of each class, in the order of the classes.
        candidate: the version's evaluation on these images.
        opponents: `production` where something is, then the two that are always there.
        confidence: of the version, on the same images.
        seconds: what it took.
    """

    model_config = ConfigDict(frozen=True)

    basis: Basis
    groups: list[int]
    candidate: Evaluation
    opponents: list[Opponent]
    confidence: Confidence
    seconds: float
