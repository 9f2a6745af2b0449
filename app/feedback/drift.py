"""Drift: are the images of late such as the version was given at first?

Two figures over the last predictions of what is in production: the mean probability of the label,
and the share of `undecidable`. They are held against the version's first predictions, the only
images whose mixture of classes and whose rule of decision are the line's own. It drifts where the
95 % interval of a difference leaves out zero on the bad side: less sure, or less often decided.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self
from uuid import UUID

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from app.core.tables import Decision, PredictionRecord
from models.evaluation.contest import Difference

FIRST, LEAST = 200, 50
_Z = 1.959964  # of the middle 95 %
_LOW_SHARE = 0.05
_ROUNDING = 1e-6  # of a stored probability

_Row = Row[UUID, float, Decision]


class Mean(NamedTuple):
    """The mean of values, their variance, and how many there are."""

    value: float
    variance: float
    number: int

    def less(self, other: "Mean") -> Difference:
        """Return the difference of two means with its normal interval."""
        value = self.value - other.value
        half = _Z * math.sqrt(self.variance / self.number + other.variance / other.number)
        return Difference(value=value, low=value - half, high=value + half)


class Confidence(BaseModel):
    """How sure a version was, over some of its predictions.

    Attributes:
        images: how many there were.
        mean_probability: of the label, with its standard deviation beside it.
        undecidable: share of them.
        low_probability: one image in twenty is less sure than this.
    """

    model_config = ConfigDict(frozen=True)

    images: int = Field(examples=[200])
    mean_probability: float = Field(examples=[0.93])
    deviation: float = Field(examples=[0.1])
    undecidable: float = Field(examples=[0.02])
    low_probability: float = Field(examples=[0.61])

    @classmethod
    def of(cls, rows: Sequence[_Row]) -> Self | None:
        """Sum up predictions; None of nothing."""
        if not rows:
            return None
        probabilities = np.array([row.probability for row in rows])
        return cls(
            images=len(rows),
            mean_probability=float(probabilities.mean()),
            deviation=float(probabilities.std()),
            undecidable=float(np.mean([row.decision == "undecidable" for row in rows])),
            low_probability=float(np.quantile(probabilities, _LOW_SHARE)),
        )

    @property
    def probability(self) -> Mean:
        """The mean probability; never without variance, as each is rounded."""
        return Mean(self.mean_probability, self.deviation**2 + _ROUNDING**2, self.images)

    @property
    def undecided(self) -> Mean:
        """The share of `undecidable`; never without variance, as few images show no exception."""
        smoothed = (self.undecidable * self.images + 1) / (self.images + 2)
        return Mean(self.undecidable, smoothed * (1 - smoothed), self.images)


@dataclass(frozen=True)
class Drift:
    """How the last predictions of a version compare with its first ones.

    Attributes:
        first: the first 200; None while there are fewer.
        last: at most 200 that came after those; None where there is none.
    """

    first: Confidence | None
    last: Confidence | None

    @property
    def probability_change(self) -> Difference | None:
        """Of the mean probability; None where there are too few predictions."""
        return self._change(lambda seen: seen.probability)

    @property
    def undecidable_change(self) -> Difference | None:
        """Of the share of `undecidable`; None where there are too few predictions."""
        return self._change(lambda seen: seen.undecided)

    @property
    def drifting(self) -> bool | None:
        """Whether the images are others than at first; None where nobody can say yet."""
        surer, shyer = self.probability_change, self.undecidable_change
        return None if surer is None or shyer is None else surer.high < 0 or shyer.low > 0

    @property
    def low_probability(self) -> float | None:
        """One image in twenty of the first ones is less sure than this."""
        return None if self.first is None else self.first.low_probability

    def _change(self, figure: Callable[[Confidence], Mean]) -> Difference | None:
        if self.first is None or self.last is None or self.last.images < LEAST:
            return None
        return figure(self.last).less(figure(self.first))


def drift_of(session: Session, project_id: UUID, version_id: UUID) -> Drift:
    """Look at the predictions of the version in its project."""
    row = PredictionRecord
    said = select(row.id, row.probability, row.decision).where(
        row.project_id == project_id,
        row.model_version_id == version_id,
        # Ids are in the order of time: what other versions said before is not looked through.
        row.id > version_id,
    )
    first = session.execute(said.order_by(row.id).limit(FIRST)).all()
    if len(first) < FIRST:
        return Drift(first=None, last=None)
    later = said.where(row.id > first[-1].id).order_by(row.id.desc()).limit(FIRST)
    return Drift(first=Confidence.of(first), last=Confidence.of(session.execute(later).all()))
