"""Gates as JSON."""

from datetime import datetime
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from app.core.tables import JobState
from app.projects.gate_policy import GatePolicy
from app.registry.gates import GatesView
from app.registry.schemas import warnings_of
from app.registry.verdicts import Gate, Verdict
from app.tunings.schemas import FailureOut, ProgressOut
from models.classes import ClassSpec
from models.evaluation.contest import Opponent
from models.evaluation.results import Basis, Evaluation

_SHARE = {"value": 0.95, "low": 0.91, "high": 0.98}
_GAP = {"value": 0.02, "low": -0.01, "high": 0.06}
_EVALUATION = {
    "basis": "holdout",
    "n_images": 200,
    "top1": _SHARE,
    "macro": _SHARE,
    "per_class": [_SHARE, _SHARE],
    "confusion": [[97, 3], [7, 93]],
    "ece": 0.03,
}
_POLICY = {"enabled": True, "margin": 0.05, "inconclusive": "allow", "floors": {"scratch": 0.9}}


class GateOut(BaseModel):
    """One thing that a version has to show."""

    name: str = Field(
        description="`production`, `zero-shot`, `linear-probe`, `coverage`, or `floor: ` and a"
        " class.",
        examples=["production"],
    )
    verdict: Verdict = Field(
        description="`pass`: the interval is above the limit; `fail`: below; else `inconclusive`."
    )
    value: float = Field(examples=[0.02])
    low: float | None = Field(None, examples=[-0.01])
    high: float | None = Field(None, examples=[0.06])
    limit: float = Field(examples=[-0.05])
    detail: str = Field(examples=["+2.0 points of macro accuracy (-1.0 to +6.0) against …"])
    blocks: bool = Field(description="It keeps the version out of production.")


class FoundOut(BaseModel):
    """What was measured, on which images."""

    basis: Basis = Field(
        description="`holdout`: images that neither version was tuned on. `out-of-fold`: every"
        " image, predicted by both recipes tuned again without it."
    )
    images: int = Field(examples=[200])
    groups: list[int] = Field(description="Of each class.", examples=[[100, 100]])
    candidate: Evaluation = Field(examples=[_EVALUATION])
    opponents: list[Opponent] = Field(
        examples=[[{"name": "production", "macro": _SHARE, "difference": _GAP}]]
    )
    seconds: float = Field(examples=[21.5])


class GatesOut(BaseModel):
    """What stands between a version and production."""

    model: UUID
    version: int = Field(examples=[8])
    against: int | None = Field(
        None, description="The version that it is to replace; null where there is none."
    )
    policy: GatePolicy = Field(
        description="The rules that count now, of project and box.", examples=[_POLICY]
    )
    state: JobState | None = Field(None, description="Of the last run; null where there was none.")
    verdict: Verdict | None = Field(None, description="The worst of all gates.")
    passed: bool = Field(description="It may be promoted now.")
    gates: list[GateOut]
    warnings: list[str] = Field(
        [],
        description="What speaks against letting it decide, as of the model; no gate.",
        examples=[[]],
    )
    found: FoundOut | None = None
    progress: ProgressOut | None = None
    failure: FailureOut | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @classmethod
    def of(cls, view: GatesView) -> Self:
        """Return the gates as JSON shows them."""
        run, result, failing = view.run, view.result, view.failing
        return cls(
            model=view.version.id,
            version=view.version.number,
            against=None if view.against is None else view.against.number,
            policy=view.policy,
            state=None if run is None else run.state,
            verdict=view.verdict,
            passed=view.passed,
            gates=[_gate(gate, blocks=gate in failing) for gate in view.gates],
            warnings=warnings_of(
                [ClassSpec.model_validate(spec) for spec in view.version.classes],
                view.version.metrics,
            ),
            found=None
            if result is None
            else FoundOut(images=result.candidate.n_images, **dict(result)),
            progress=None if run is None or run.progress is None else ProgressOut(**run.progress),
            failure=None if run is None or run.failure is None else FailureOut(**run.failure),
            started_at=None if run is None else run.started_at,
            finished_at=None if run is None else run.finished_at,
        )


def _gate(gate: Gate, *, blocks: bool) -> GateOut:
    return GateOut(**gate._asdict(), blocks=blocks)
