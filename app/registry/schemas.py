"""Model versions and aliases as JSON."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.core.tables import AliasMove, MoveKind
from app.registry.service import PRODUCTION, AliasView, VersionView
from models.classes import ClassSpec
from models.language import ENGLISH
from models.trust.doubts import measured_in, warnings

_VERSION = "01a20b55-77aa-7c01-8f1e-2d9a6b3c4e5f"
_PROJECT = "01a20b48-d9d8-77c9-9f13-d3234f8739ae"
_KEY = "01a20b48-0000-7000-8000-000000000001"
_DIGEST = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_SHARE = {"value": 0.95, "low": 0.91, "high": 0.98}


class ShareOut(BaseModel):
    """A share of images with its 95 % interval."""

    value: float = Field(examples=[0.95])
    low: float = Field(examples=[0.91])
    high: float = Field(examples=[0.98])


class AccuracyOut(BaseModel):
    """How good a version is, and on which images that was found."""

    basis: str = Field(
        description="`holdout` images, or `out-of-fold` predictions; never images it was tuned on.",
        examples=["holdout"],
    )
    images: int = Field(examples=[200])
    macro: ShareOut = Field(description="Mean of the classes' accuracies.")
    top1: ShareOut
    zero_shot_macro: ShareOut = Field(description="The backbone without tuning, on the same.")


class ModelOut(BaseModel):
    """A model version."""

    id: UUID = Field(examples=[_VERSION])
    project: UUID = Field(examples=[_PROJECT])
    version: int = Field(examples=[7])
    digest: str = Field(examples=[_DIGEST])
    aliases: list[str] = Field(examples=[["production"]])
    backbone: str = Field(examples=["starter"])
    backbone_digest: str = Field(examples=[_DIGEST])
    classes: list[ClassSpec] = Field(
        examples=[[{"name": "good", "prompt_name": "good", "role": "ok"}]]
    )
    accuracy: AccuracyOut
    warnings: list[str] = Field(
        [],
        description="What speaks against letting it decide: it decides less than half of such"
        " images, or is not surely right more often than the larger role is.",
        examples=[[]],
    )
    tuning: UUID
    created_at: datetime

    @classmethod
    def of(cls, found: VersionView) -> Self:
        """Return the version as JSON shows it."""
        row = found.row
        classes = [ClassSpec.model_validate(spec) for spec in row.classes]
        return cls(
            id=row.id,
            project=row.project_id,
            version=row.number,
            digest=row.digest,
            aliases=found.aliases,
            backbone=row.backbone,
            backbone_digest=row.backbone_digest,
            classes=classes,
            accuracy=_accuracy(row.metrics),
            warnings=warnings_of(classes, row.metrics),
            tuning=row.tuning_id,
            created_at=row.created_at,
        )


class ReportOut(BaseModel):
    """Everything that is known of a version."""

    model: ModelOut
    metrics: dict[str, Any] = Field(
        description="Evaluation of the tuned model and of the backbone without tuning (with"
        " confusion matrices), collapse metrics before and after, the epochs, and the seconds of"
        " each phase. A value that could not be computed is null.",
        examples=[{"tuned": {"basis": "holdout", "n_images": 200, "macro": _SHARE}}],
    )

    report: dict[str, Any] = Field(
        description="All that the page says, in figures and in sentences: accuracy by class, costs,"
        " trust, confusions, mistakes (images by their sha256) with the check of their heat"
        " maps, findings, the learning curve, the search, the geometry and its meaning, and how to"
        " do it again.",
        examples=[
            {"language": "en", "cautions": [], "summary": ["Tuned: 95.0 %, 95 % interval 91"]}
        ],
    )

    @classmethod
    def of(cls, found: VersionView, document: dict[str, Any]) -> Self:
        """Return the version's report."""
        return cls(model=ModelOut.of(found), metrics=found.row.metrics, report=document)


Version = Annotated[int, Field(ge=1, lt=2**31, description="Number of the version.", examples=[7])]
Reason = Annotated[
    str | None, Field(max_length=500, description="Why; kept.", examples=["passed the night shift"])
]


class AliasIn(BaseModel):
    """Where an alias is to point."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"version": 7, "reason": "passed the night shift"}]},
    )

    version: Version
    reason: Reason = None
    override: Annotated[
        str | None,
        Field(
            max_length=500,
            description="Of an admin: why the version is promoted although its gates say no; kept.",
            examples=["the camera was moved, and the old version sees nothing any more"],
        ),
    ] = None


class RollbackIn(BaseModel):
    """Which alias is to go back."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "too many false alarms"}]}
    )

    alias: str = Field(PRODUCTION, max_length=200, examples=[PRODUCTION])
    reason: Reason = None


class AliasOut(BaseModel):
    """An alias and the version that it names."""

    alias: str = Field(examples=[PRODUCTION])
    version: Version
    model: UUID = Field(examples=[_VERSION])
    digest: str = Field(examples=[_DIGEST])
    moved_at: datetime

    @classmethod
    def of(cls, found: AliasView) -> Self:
        """Return the alias as JSON shows it."""
        return cls(
            alias=found.row.name,
            version=found.version.number,
            model=found.version.id,
            digest=found.version.digest,
            moved_at=found.row.moved_at,
        )


class MoveOut(BaseModel):
    """One move of an alias."""

    id: UUID
    alias: str = Field(examples=[PRODUCTION])
    kind: MoveKind
    from_model: UUID | None = Field(None, examples=[_VERSION])
    to_model: UUID = Field(examples=[_VERSION])
    moved_by: UUID | None = Field(None, description="The API key.", examples=[_KEY])
    reason: str | None = Field(None, examples=["passed the night shift"])
    automatic: bool = Field(description="A tuning made the version, and it became `candidate`.")
    override: str | None = Field(
        None,
        description="Why an admin promoted it although its gates said no.",
        examples=["the camera was moved"],
    )
    moved_at: datetime

    @classmethod
    def of(cls, row: AliasMove) -> Self:
        """Return the move as JSON shows it."""
        return cls(
            id=row.id,
            alias=row.alias,
            kind=row.kind,
            from_model=row.from_version_id,
            to_model=row.to_version_id,
            moved_by=row.moved_by,
            reason=row.reason,
            automatic=row.automatic,
            override=row.override,
            moved_at=row.moved_at,
        )


def warnings_of(classes: Sequence[ClassSpec], metrics: dict[str, Any]) -> list[str]:
    """Return what speaks against letting a version decide, in English sentences."""
    return warnings(classes, measured_in(classes, metrics), ENGLISH)


def _accuracy(metrics: dict[str, Any]) -> AccuracyOut:
    tuned = metrics["tuned"]
    return AccuracyOut(
        basis=tuned["basis"],
        images=tuned["n_images"],
        macro=ShareOut(**tuned["macro"]),
        top1=ShareOut(**tuned["top1"]),
        zero_shot_macro=ShareOut(**metrics["zero_shot"]["macro"]),
    )
