"""Predictions as JSON, and as a line of text for a PLC."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.core.clock import UtcTime
from app.core.tables import Decision, PredictionRecord
from models.decision import Decision as Made
from models.trust.reasons import SENTENCES, Reason

COMPACT_BYTES = 254
_CODES: dict[Decision, int] = {"ok": 1, "ng": 2, "undecidable": 3}  # OPC 40001-101

_PREDICTION = "01a20b61-3c4d-7e5f-8a9b-0c1d2e3f4a5b"
_VERSION = "01a20b55-77aa-7c01-8f1e-2d9a6b3c4e5f"
_DIGEST = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_SMALLEST_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

Base64 = Annotated[str, Field(description="The file's bytes as base64.", examples=[_SMALLEST_PNG])]


class OriginIn(BaseModel):
    """Where an image comes from; kept with the prediction, searchable."""

    model_config = ConfigDict(extra="forbid")

    image_id: str | None = Field(None, max_length=200, description="Echoed in the answer.")
    part_id: str | None = Field(None, max_length=200)
    station: str | None = Field(None, max_length=200)
    captured_at: UtcTime | None = None


class PredictImageIn(OriginIn):
    """One of several images."""

    image: Base64


class PredictIn(OriginIn):
    """One image, or several; what is said of the origin counts for all that say nothing else."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"image": _SMALLEST_PNG, "image_id": "cam3-000123", "part_id": "SN-4711"},
                {"station": "line 3", "images": [{"image": _SMALLEST_PNG, "image_id": "a"}]},
            ]
        },
    )

    image: Base64 | None = None
    images: list[PredictImageIn] | None = Field(None, min_length=1, fail_fast=True)

    @model_validator(mode="after")
    def _check_one_of_both(self) -> Self:
        if (self.image is None) == (self.images is None):
            raise ValueError("give either image or images")
        return self


class LabelProbabilityOut(BaseModel):
    """A class and how probable the model holds it."""

    label: str = Field(examples=["scratch"])
    probability: float = Field(examples=[0.94])


class ModelRef(BaseModel):
    """The version that answered."""

    id: UUID = Field(examples=[_VERSION])
    version: int = Field(examples=[7])
    digest: str = Field(examples=[_DIGEST])


class PredictionOut(BaseModel):
    """What the line is told of an image."""

    prediction_id: UUID = Field(examples=[_PREDICTION])
    image_id: str | None = Field(examples=["cam3-000123"])
    decision: Decision = Field(description="What the line may conclude.", examples=["ng"])
    reason: Reason | None = Field(
        description="Why, in a word of a closed list; null in records from before there were any. "
        + " ".join(f"`{reason}`: {sentence}" for reason, sentence in SENTENCES.items()),
        examples=["certain"],
    )
    label: str = Field(examples=["scratch"])
    probability: float = Field(examples=[0.94])
    probabilities: list[LabelProbabilityOut] = Field(
        description="Highest first; `top_k` of them.",
        examples=[[{"label": "scratch", "probability": 0.94}]],
    )
    prediction_set: list[str] = Field(
        description="The classes that the image could be of, most probable first.",
        examples=[["scratch"]],
    )
    model: ModelRef
    timings_ms: dict[str, float] = Field(
        description="`decode` and `encode` are work, `queue` is waiting; `encode` is the time of"
        " the whole batch that the image rode in.",
        examples=[{"decode": 3.1, "queue": 0.4, "encode": 17.2, "total": 21.0}],
    )

    @classmethod
    def of(cls, row: PredictionRecord) -> Self:
        """Return `row` as JSON shows it."""
        return cls(**_shown(row))

    def compact(self) -> str:
        """Return `code;probability;version;reason;label`, see `compact`."""
        version = self.model.version
        return compact(self.decision, self.probability, version, self.reason, self.label)


class RecordOut(PredictionOut):
    """A prediction as it was recorded."""

    project: UUID
    part_id: str | None = Field(examples=["SN-4711"])
    station: str | None = Field(examples=["line 3"])
    captured_at: datetime | None
    image_kept: bool = Field(description="The image can be had at `/v1/predictions/{id}/image`.")
    created_at: datetime

    @classmethod
    def of(cls, row: PredictionRecord) -> Self:
        """Return `row` as JSON shows it."""
        return cls(
            **_shown(row),
            project=row.project_id,
            part_id=row.part_id,
            station=row.station,
            captured_at=row.captured_at,
            image_kept=row.image_sha256 is not None,
            created_at=row.created_at,
        )


class ResultsOut(BaseModel):
    """The answers to several images, in the order of the request.

    In the place of an image that cannot be decided on stands a problem, with its `image_id`.
    """

    results: list[PredictionOut | dict[str, Any]]


def shown_decision(made: Made) -> dict[str, Any]:
    """Return what an answer says of a decision, its probabilities rounded."""
    return {
        "decision": made.decision,
        "reason": made.reason,
        "label": made.label,
        "probability": round(made.probability, 6),
        "probabilities": [
            {"label": entry.label, "probability": round(entry.probability, 6)}
            for entry in made.probabilities
        ],
        "prediction_set": made.prediction_set,
    }


def compact(
    decision: Decision, probability: float, version: int, reason: Reason | None, label: str
) -> str:
    """Return `{code};{probability:.4f};{version};{reason};{label}`, at most 254 bytes of UTF-8.

    The code is 1 for ok, 2 for ng, 3 for undecidable; the reason is empty where none is known. What
    does not fit is cut off the label, never within a character.
    """
    text = f"{_CODES[decision]};{probability:.4f};{version};{reason or ''};{label}"
    return text.encode()[:COMPACT_BYTES].decode(errors="ignore")


def _shown(row: PredictionRecord) -> dict[str, Any]:
    return {
        "prediction_id": row.id,
        "image_id": row.image_id,
        "decision": row.decision,
        "reason": row.reason,
        "label": row.label,
        "probability": row.probability,
        "probabilities": row.probabilities,
        "prediction_set": row.prediction_set,
        "model": ModelRef(
            id=row.model_version_id, version=row.model_number, digest=row.model_digest
        ),
        "timings_ms": row.timings_ms,
    }
