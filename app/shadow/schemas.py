"""What the candidate said of live images, as JSON."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from app.core.tables import Decision
from app.feedback.schemas import DriftOut, IntervalOut
from app.registry.gate_schemas import GatesOut
from app.shadow.repository import Example
from app.shadow.service import ShadowView, State


class ShadowIn(BaseModel):
    """Whether the candidate answers beside production."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"enabled": True}]})

    enabled: StrictBool


class SaidOut(BaseModel):
    """What one version said of an image."""

    decision: Decision
    label: str = Field(examples=["scratch"])
    probability: float = Field(examples=[0.94])


class DifferenceOut(BaseModel):
    """An image of which the two say different things."""

    prediction_id: UUID
    production: SaidOut
    candidate: SaidOut
    feedback: str | None = Field(
        None, description="The true label, where somebody said it.", examples=["scratch"]
    )
    image_kept: bool

    @classmethod
    def of(cls, example: Example) -> Self:
        """Return the image as JSON shows it."""
        made, answer, true = example
        return cls(
            prediction_id=made.id,
            production=SaidOut(
                decision=made.decision, label=made.label, probability=made.probability
            ),
            candidate=SaidOut(
                decision=answer.decision, label=answer.label, probability=answer.probability
            ),
            feedback=true,
            image_kept=made.image_sha256 is not None,
        )


class RightOut(BaseModel):
    """Of the images on which the two differ and the true label is known: who was right."""

    production: int = Field(examples=[2])
    candidate: int = Field(examples=[5])
    neither: int = Field(examples=[0])


class ShadowOut(BaseModel):
    """How the candidate compares with production on live images."""

    state: State = Field(
        description="`off`; `waiting` for a version; `refused`, since it does not fit the gateway's"
        " backbone or production's view; `on`."
    )
    why: str | None = Field(
        None,
        description="Why it does not answer.",
        examples=["There is no candidate; the next tuning makes one."],
    )
    production: int | None = Field(None, description="Version.", examples=[7])
    candidate: int | None = Field(None, description="Version.", examples=[8])
    images: int = Field(description="Both answered; at most the last 10,000.", examples=[500])
    since: datetime | None = None
    agreement: IntervalOut | None = Field(
        None, description="Share of images with the same decision and label, with its interval."
    )
    decisions_differ: int = Field(examples=[7])
    confusion: dict[Decision, dict[Decision, int]] = Field(
        description="Decisions: `confusion[production][candidate]`.",
        examples=[{"ok": {"ok": 480, "ng": 5}, "ng": {"ng": 13, "ok": 2}}],
    )
    right: RightOut
    examples: list[DifferenceOut] = Field(description="The latest first.")
    gates: GatesOut | None = Field(None, description="What stands between it and production.")
    drift: DriftOut | None = Field(None, description="Of what is in production.")

    @classmethod
    def of(cls, view: ShadowView) -> Self:
        """Return the comparison as JSON shows it."""
        confusion: dict[Decision, dict[Decision, int]] = {}
        for pair in view.pairs:
            row = confusion.setdefault(pair.production, {})
            row[pair.candidate] = row.get(pair.candidate, 0) + pair.images
        return cls(
            state=view.state,
            why=view.why,
            production=None if view.production is None else view.production.number,
            candidate=None if view.candidate is None else view.candidate.number,
            images=view.images,
            since=view.since,
            agreement=IntervalOut.of(view.agreement),
            decisions_differ=view.decisions_differ,
            confusion=confusion,
            right=RightOut(**view.right._asdict()),
            examples=[DifferenceOut.of(example) for example in view.examples],
            gates=None if view.gates is None else GatesOut.of(view.gates),
            drift=None if view.drift is None else DriftOut.of(view.drift),
        )
