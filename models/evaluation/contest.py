"""What a contest between versions found, as values. No torch here: the gateway judges by them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from models.evaluation.results import Basis, Evaluation, Proportion

OpponentName = Literal["production", "zero-shot", "linear-probe"]


class Difference(BaseModel):
    """A difference of two figures with its 95 % interval."""

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
        difference: the version's macro accuracy less this one, see `models.evaluation.paired`.
    """

    model_config = ConfigDict(frozen=True)

    name: OpponentName
    macro: Proportion
    difference: Difference


class GateResult(BaseModel):
    """A version measured against what it is to replace.

    Attributes:
        basis: `holdout`: images that neither was tuned on; `out-of-fold`: both recipes tuned again
            without the images that they then predict.
        groups: of each class, in the order of the classes.
        candidate: the version's evaluation on these images.
        opponents: `production` where something is, then the two that are always there.
        seconds: what it took.
    """

    model_config = ConfigDict(frozen=True)

    basis: Basis
    groups: list[int]
    candidate: Evaluation
    opponents: list[Opponent]
    seconds: float
