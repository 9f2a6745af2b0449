"""Feedback, the review queue and drift, as JSON."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.core.tables import Decision, ReviewAction
from app.core.tables import Feedback as FeedbackRow
from app.core.tables import Review as ReviewRow
from app.feedback.drift import FIRST, Confidence, Drift
from app.feedback.ranking import Ranked, Reason
from app.feedback.service import Queue
from models.evaluation.contest import Difference
from models.evaluation.results import Proportion

_PREDICTION = "01a20b61-3c4d-7e5f-8a9b-0c1d2e3f4a5b"

Label = Annotated[str, Field(max_length=200, description="A class's name.", examples=["scratch"])]


class IntervalOut(BaseModel):
    """A figure with its 95 % interval."""

    value: float = Field(examples=[0.97])
    low: float = Field(examples=[0.94])
    high: float = Field(examples=[0.99])

    @classmethod
    def of(cls, found: Proportion | Difference | None) -> Self | None:
        """Return the figure as JSON shows it."""
        return None if found is None else cls(**found.model_dump())


class DriftOut(BaseModel):
    """How the last predictions compare with the version's first ones."""

    drifting: bool | None = Field(
        description="The version is less sure, or decides less often, than chance allows; null"
        " where nobody can say yet."
    )
    first: Confidence | None = Field(
        description=f"Its first {FIRST} predictions; null while there are fewer."
    )
    last: Confidence | None = Field(description=f"At most {FIRST} that came after those.")
    probability_change: IntervalOut | None
    undecidable_change: IntervalOut | None

    @classmethod
    def of(cls, drift: Drift) -> Self:
        """Return the comparison as JSON shows it."""
        return cls(
            drifting=drift.drifting,
            first=drift.first,
            last=drift.last,
            probability_change=IntervalOut.of(drift.probability_change),
            undecidable_change=IntervalOut.of(drift.undecidable_change),
        )


class FeedbackIn(BaseModel):
    """What an image truly shows."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"label": "scratch", "note": "seen by QA"}]}
    )

    label: Label
    note: str | None = Field(None, max_length=500, examples=["seen by QA"])


class FeedbackOut(BaseModel):
    """What somebody said an image truly shows."""

    prediction_id: UUID = Field(examples=[_PREDICTION])
    label: Label
    note: str | None = Field(None, examples=["seen by QA"])
    given_by: UUID | None = Field(None, description="The API key.")
    given_at: datetime
    replaced_at: datetime | None = Field(
        None, description="When another label was said; null for the one that counts."
    )

    @classmethod
    def of(cls, row: FeedbackRow) -> Self:
        """Return the feedback as JSON shows it."""
        return cls(
            prediction_id=row.prediction_id,
            label=row.label,
            note=row.note,
            given_by=row.given_by,
            given_at=row.given_at,
            replaced_at=row.replaced_at,
        )


class WaitingOut(BaseModel):
    """A prediction that somebody should look at."""

    prediction_id: UUID = Field(examples=[_PREDICTION])
    score: float = Field(description="How much is to be learnt from it.", examples=[2.31])
    reasons: list[Reason] = Field(examples=[["disagreeing", "undecidable"]])
    decision: Decision
    label: str = Field(examples=["scratch"])
    probability: float = Field(examples=[0.54])
    version: int = Field(examples=[7])
    candidate_label: str | None = Field(
        None, description="What the candidate says.", examples=["good"]
    )
    feedback: str | None = Field(
        None, description="What somebody says is true.", examples=["scratch"]
    )
    part_id: str | None = Field(None, examples=["SN-4711"])
    station: str | None = Field(None, examples=["line 3"])
    image_id: str | None = Field(None, examples=["cam3-000123"])
    image_kept: bool = Field(description="It can be kept or relabelled.")
    created_at: datetime

    @classmethod
    def of(cls, ranked: Ranked) -> Self:
        """Return the prediction as JSON shows it."""
        made, candidate, feedback = ranked.waiting
        return cls(
            prediction_id=made.id,
            score=ranked.score,
            reasons=ranked.reasons,
            decision=made.decision,
            label=made.label,
            probability=made.probability,
            version=made.model_number,
            candidate_label=None if candidate is None else candidate.label,
            feedback=feedback,
            part_id=made.part_id,
            station=made.station,
            image_id=made.image_id,
            image_kept=made.image_sha256 is not None,
            created_at=made.created_at,
        )


class QueueOut(BaseModel):
    """What somebody should look at."""

    items: list[WaitingOut] = Field(description="Most informative first.")
    waiting: int = Field(description="Of the last 20,000 predictions; at most 2,000.")
    gathered: int = Field(description="Images that reviews added since the last tuning.")
    drift: DriftOut | None = Field(None, description="Of what is in production.")

    @classmethod
    def of(cls, queue: Queue) -> Self:
        """Return the queue as JSON shows it."""
        return cls(
            items=[WaitingOut.of(entry) for entry in queue.entries],
            waiting=queue.waiting,
            gathered=queue.gathered,
            drift=None if queue.drift is None else DriftOut.of(queue.drift),
        )


class ReviewIn(BaseModel):
    """What is to become of a prediction that waits."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"action": "keep"}, {"action": "relabel", "label": "傷"}]},
    )

    action: ReviewAction = Field(
        description="`keep`: its image is added to the project's, under the label of the feedback,"
        " else of the prediction. `relabel`: under `label`. `discard`: it leaves the queue."
    )
    label: Label | None = None


class ReviewOut(BaseModel):
    """What became of a prediction that waited."""

    prediction_id: UUID = Field(examples=[_PREDICTION])
    action: ReviewAction
    label: str | None = Field(None, examples=["scratch"])
    image: UUID | None = Field(None, description="The project's image that came of it.")
    reviewed_by: UUID | None = Field(None, description="The API key.")
    reviewed_at: datetime

    @classmethod
    def of(cls, row: ReviewRow) -> Self:
        """Return the review as JSON shows it."""
        return cls(
            prediction_id=row.prediction_id,
            action=row.action,
            label=row.label,
            image=row.image_id,
            reviewed_by=row.reviewed_by,
            reviewed_at=row.reviewed_at,
        )


class TuneAgainIn(BaseModel):
    """How to tune on what was gathered; by default as what is in production was."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}, {"seed": 1}]})

    recipe: Literal["auto"] | Annotated[dict[str, Any], Field(max_length=100)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
