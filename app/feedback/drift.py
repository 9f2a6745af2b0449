"""Drift: are the images of late such as the version knows?

Two figures over the last predictions of what is in production: the mean probability of the label,
and the share of `undecidable`. They are held against the version's own on images that it was not
tuned on, which its gates measured; without gates, against its first predictions. It drifts where
the 95 % interval of a difference leaves out zero on the bad side: less sure, or less often decided.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from uuid import UUID

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.shares import Mean, Share, gap
from app.core.tables import GateRun, PredictionRecord
from models.evaluation.contest import Confidence, GateResult

Basis = Literal["gates", "first predictions"]

WINDOW, LEAST = 200, 50


@dataclass(frozen=True)
class Drift:
    """How the last predictions of a version compare with what it was seen to do before.

    Attributes:
        images: how many are looked at.
        basis: what they are held against; None where there is nothing yet.
        reference: those figures.
        mean_probability, undecidable: of the last ones.
        probability_change, undecidable_change: less the reference's; None where there are too few.
        drifting: one of them is worse than chance allows; None where nobody can say yet.
    """

    images: int
    basis: Basis | None
    reference: Confidence | None
    mean_probability: float | None
    undecidable: float | None
    probability_change: Share | None
    undecidable_change: Share | None

    @property
    def drifting(self) -> bool | None:
        """Whether the images are others than those that the version knows."""
        if self.probability_change is None or self.undecidable_change is None:
            return None
        return self.probability_change.high < 0 or self.undecidable_change.low > 0

    @property
    def low_probability(self) -> float | None:
        """One image in twenty of those it knows is less sure than this."""
        return None if self.reference is None else self.reference.low_probability


class _Said(NamedTuple):
    probability: float
    undecidable: bool


def drift_of(session: Session, project_id: UUID, version_id: UUID) -> Drift:
    """Look at the last predictions of the version in its project."""
    last = _said(session, project_id, version_id, newest=True)
    basis, reference = _reference(session, project_id, version_id, last)
    now = None if not last else _confidence(last)
    if now is None or reference is None or now.images < LEAST:
        return Drift(
            images=len(last),
            basis=basis,
            reference=reference,
            mean_probability=None if now is None else now.mean_probability,
            undecidable=None if now is None else now.undecidable,
            probability_change=None,
            undecidable_change=None,
        )
    return Drift(
        images=now.images,
        basis=basis,
        reference=reference,
        mean_probability=now.mean_probability,
        undecidable=now.undecidable,
        probability_change=gap(_probability(now), _probability(reference)),
        undecidable_change=gap(_undecidable(now), _undecidable(reference)),
    )


def _probability(found: Confidence) -> Mean:
    return Mean(found.mean_probability, found.deviation**2, found.images)


def _undecidable(found: Confidence) -> Mean:
    """Return the share; its variance is never none, since few images show no exception."""
    smoothed = (found.undecidable * found.images + 1) / (found.images + 2)
    return Mean(found.undecidable, smoothed * (1 - smoothed), found.images)


def _reference(
    session: Session, project_id: UUID, version_id: UUID, last: Sequence[_Said]
) -> tuple[Basis | None, Confidence | None]:
    query = (
        select(GateRun.result)
        .where(GateRun.version_id == version_id, GateRun.state == "succeeded")
        .order_by(GateRun.id.desc())
        .limit(1)
    )
    result = session.scalar(query)
    if result is not None:
        return "gates", GateResult.model_validate(result).confidence
    if len(last) < WINDOW:
        return None, None
    return "first predictions", _confidence(_said(session, project_id, version_id, newest=False))


def _said(session: Session, project_id: UUID, version_id: UUID, *, newest: bool) -> Sequence[_Said]:
    row = PredictionRecord
    query = (
        select(row.probability, row.decision)
        .where(row.project_id == project_id, row.model_version_id == version_id)
        .order_by(row.id.desc() if newest else row.id)
        .limit(WINDOW)
    )
    return [_Said(share, made == "undecidable") for share, made in session.execute(query)]


def _confidence(said: Sequence[_Said]) -> Confidence:
    return Confidence.of(
        np.array([each.probability for each in said]),
        np.array([each.undecidable for each in said]),
    )
