"""Findings as JSON."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.core.tables import Examination, FoundFinding, JobState, Split
from app.findings.service import FoundView
from app.http.pagination import Page, PageQuery
from app.tunings.schemas import FailureOut
from models.findings.finding import SEVERITIES, Finding, Kind, Severity

_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class FoundImageOut(BaseModel):
    """An image that a finding names."""

    id: UUID | None = Field(description="Null where the image is not in the project any more.")
    sha256: str = Field(
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
    )
    file: str = Field(examples=["scratch/0001.png"])
    label: str = Field(description="At the time of the examination.", examples=["scratch"])
    split: Split


class FindingOut(BaseModel):
    """One thing that was found."""

    id: UUID
    kind: Kind = Field(examples=["near_duplicate"])
    severity: Severity = Field(
        description="`serious` falsifies what is learnt or measured, a `warning` may.",
        examples=["serious"],
    )
    images: list[FoundImageOut] = Field(
        description="Two where it is of a pair. Of a probable label error the suspect, then the"
        " nearest image of the class that it seems to be."
    )
    count: int = Field(description="How many images it concerns.", examples=[2])
    classes: list[str] = Field(examples=[["scratch", "dent"]])
    score: float = Field(
        description="How strong it is, within its kind; higher is worse.", examples=[0.93]
    )
    problem: str = Field(
        examples=["'scratch/0001.png' and 'dent/0007.png' look like copies of one image, under the"
                  " labels 'scratch', 'dent'."]
    )  # fmt: skip
    fix: str = Field(examples=["Decide which label is right, and remove or relabel the others."])

    @classmethod
    def of(cls, row: FoundFinding, ids: dict[str, UUID]) -> Self:
        """Return `row` as JSON shows it."""
        one = Finding.model_validate(row.content)
        images = [
            FoundImageOut(
                id=ids.get(ref.sha256),
                sha256=ref.sha256,
                file=ref.name,
                label=ref.label,
                split=ref.split,
            )
            for ref in one.images
        ]
        return cls(id=row.id, images=images, **one.model_dump(exclude={"images", "says", "asks"}))


class ExaminationOut(BaseModel):
    """A look at a project's images that was asked for."""

    id: UUID
    state: JobState = Field(examples=["running"])
    failure: FailureOut | None = None
    created_at: datetime
    finished_at: datetime | None = None

    @classmethod
    def of(cls, row: Examination) -> Self:
        """Return `row` as JSON shows it."""
        return cls(
            id=row.id,
            state=row.state,
            failure=None if row.failure is None else FailureOut(**row.failure),
            created_at=row.created_at,
            finished_at=row.finished_at,
        )


class FindingsOut(Page[FindingOut]):
    """What the data doctor found when it last looked at the project's images."""

    computed_at: datetime | None = Field(description="Null where it has not looked yet.")
    digest: str | None = Field(
        description="Of the images and labels that it looked at, as of a snapshot.",
        examples=[_DIGEST],
    )
    images: int | None = Field(description="How many it looked at.", examples=[120])
    tuning: UUID | None = Field(description="The tuning that it looked for.")
    out_of_date: bool = Field(
        description="Whether it has not looked yet, or images or labels changed since.",
        examples=[False],
    )
    counts: dict[Severity, int] = Field(
        description="Of all findings, whatever was asked for.",
        examples=[{"serious": 1, "warning": 4, "note": 2}],
    )
    examination: ExaminationOut | None = Field(description="The one that was asked for last.")

    @classmethod
    def of(cls, view: FoundView, page: PageQuery) -> Self:
        """Return the view as JSON shows it."""
        shown = page.page(view.rows, lambda row: FindingOut.of(row, view.ids))
        last, asked = view.examination, view.asked
        return cls(
            items=shown.items,
            next_cursor=shown.next_cursor,
            computed_at=None if last is None else last.finished_at,
            digest=None if last is None else last.digest,
            images=None if last is None else last.image_count,
            tuning=None if last is None else last.tuning_id,
            out_of_date=view.out_of_date,
            counts={name: view.counts.get(name, 0) for name in SEVERITIES},
            examination=None if asked is None else ExaminationOut.of(asked),
        )
