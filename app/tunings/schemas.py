"""Tunings as JSON."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.core.tables import JobState, Tuning
from app.searches.states import search_of
from app.tunings.repository import TuningRow
from models.findings.finding import FindingSummary
from models.recipe import Recipe
from models.search.result import Choice

_TUNING = "01a20b52-1f0e-7b2c-9a31-5b8c2b9f4d10"
_PROJECT = "01a20b48-d9d8-77c9-9f13-d3234f8739ae"
_DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

Phase = Literal["features", "search", "tune", "evaluate"]
RecipeFrom = Literal["auto", "given", "search"]

_AUTO = (
    "The default recipe, `auto`: one for all sets, chosen on development sets. Nothing in it is"
    " chosen by these images; what has to fit them is estimated while tuning."
)


class SearchIn(BaseModel):
    """What a search for a recipe may spend."""

    model_config = ConfigDict(extra="forbid")

    minutes: float = Field(
        10.0,
        description="Wall time, more than 0 and at most 300; `auto` is tried to its end all the"
        " same, and the tuning follows.",
        examples=[10],
        allow_inf_nan=False,
    )
    trials: int | None = Field(
        None, description="At most so many recipes, `auto` among them: 1 to 1000.", examples=[40]
    )
    fixed: dict[str, Any] = Field(
        default_factory=dict,
        max_length=100,
        description="Hyperparameters that are given and not searched.",
        examples=[{"n_ctx": 4}],
    )


class TuningIn(BaseModel):
    """A tuning to be run on the project's images as they are now."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {},
                {"recipe": {"steps": 300, "n_ctx": 8}, "seed": 1},
                {"recipe": "search", "search": {"minutes": 10}},
            ]
        },
    )

    recipe: Literal["auto", "search"] | Annotated[dict[str, Any], Field(max_length=100)] = Field(
        "auto",
        description="`auto`, the default recipe: one for all sets, none of it chosen by these"
        " images; or hyperparameters that differ from it; or `search`, for one that is searched for"
        " on these images.",
        examples=["auto", {"steps": 300}, "search"],
    )
    search: SearchIn | None = Field(None, description="The budget, with the recipe `search`.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="The same snapshot, recipe and seed give the same version.", examples=[0]
    )


class SnapshotOut(BaseModel):
    """What a tuning runs on: an immutable list of images and classes."""

    id: UUID
    digest: str = Field(examples=[_DIGEST])
    images: int = Field(examples=[32])
    classes: list[str] = Field(examples=[["good", "傷"]])


class SearchProgressOut(BaseModel):
    """How far a search is; accuracies are macro, out of fold inside the training images."""

    trials: int = Field(description="That were begun or wait.", examples=[14])
    running: int = Field(examples=[2])
    pruned: int = Field(description="Given up after some folds.", examples=[5])
    best: int | None = Field(None, description="The best trial so far; 0 is `auto`.", examples=[9])
    best_macro: float | None = Field(None, examples=[0.93])
    auto_macro: float | None = Field(None, examples=[0.91])


class ProgressOut(BaseModel):
    """How far a tuning is."""

    phase: Phase = Field(
        description="`features`: images are encoded. `search`: recipes are tried. `tune`: prompts"
        " are tuned. `evaluate`: the result is measured, by tuning on each fold where there is no"
        " holdout."
    )
    done: int = Field(
        description="Images; seconds of a search's budget; gradient steps.", examples=[60]
    )
    total: int = Field(examples=[150])
    epoch: int | None = Field(None, examples=[12])
    loss: float | None = Field(None, examples=[0.214])
    nc: dict[str, float | None] | None = Field(
        None,
        description="Collapse metrics at the end of the epoch: NC2 of the text features, NC3"
        " between text and image, and the regularisers LC and MI.",
        examples=[{"text_nc2": 0.12, "text_to_image_nc3": 0.08, "lc": 0.01, "mi": 0.4}],
    )
    seconds_left: float | None = Field(
        None, description="Of this phase, from its speed so far.", examples=[4.2]
    )
    search: SearchProgressOut | None = Field(None, description="While recipes are tried.")


class SearchOut(BaseModel):
    """The search for a tuning's recipe; `/v1/tunings/{tuning}/search` has its trials."""

    minutes: float = Field(description="The budget.", examples=[10])
    trials: int | None = Field(description="The budget in trials.", examples=[40])
    spent_seconds: float = Field(examples=[212.4])
    choice: Choice | None = Field(description="What was taken, and why, once it is over.")


class FailureOut(BaseModel):
    """Why a tuning or a batch failed."""

    problem: str = Field(examples=["The image 0017.png is truncated or damaged (812 bytes)."])
    fix: str = Field(examples=["Send the file again, or save it anew with an image editor."])


class VersionRef(BaseModel):
    """The version that a tuning led to."""

    id: UUID
    version: int = Field(examples=[7])


class TuningOut(BaseModel):
    """A tuning."""

    id: UUID = Field(examples=[_TUNING])
    project: UUID = Field(examples=[_PROJECT])
    state: JobState = Field(examples=["running"])
    cancel_requested: bool = Field(examples=[False])
    attempt: int = Field(description="How often a worker took it.", examples=[1])
    recipe: Recipe = Field(
        description="While one is searched for, that of the first trial, `auto`.",
        examples=[Recipe().model_dump(mode="json")],
    )
    recipe_from: RecipeFrom = Field(description="Where it comes from.", examples=["auto"])
    recipe_reason: str = Field(description="Why it is this one.", examples=[_AUTO])
    search: SearchOut | None = Field(None, description="With the recipe `search`.")
    seed: int = Field(examples=[0])
    backbone: str = Field(examples=["starter"])
    snapshot: SnapshotOut
    progress: ProgressOut | None = None
    failure: FailureOut | None = None
    model: VersionRef | None = Field(None, description="Where it succeeded.")
    warnings: list[str] = Field(
        [],
        description="What is seriously wrong with the images, and what to do about it; the tuning"
        " goes on. `GET …/findings` says more.",
        examples=[[]],
    )
    findings: list[FindingSummary] | None = Field(
        None,
        description="What the data doctor says of the snapshot; null before it has looked.",
        examples=[[]],
    )
    requested_by: UUID | None = Field(None, description="The API key that asked for it.")
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @classmethod
    def of(cls, row: TuningRow) -> Self:
        """Return `row` as JSON shows it."""
        tuning, snapshot, version = row
        found = (
            None
            if tuning.findings is None
            else [FindingSummary.model_validate(one) for one in tuning.findings]
        )
        recipe = Recipe.model_validate(tuning.recipe)
        source, reason = _chosen(tuning, recipe)
        return cls(
            id=tuning.id,
            project=tuning.project_id,
            state=tuning.state,
            cancel_requested=tuning.cancel_requested,
            attempt=tuning.attempt,
            recipe=recipe,
            recipe_from=source,
            recipe_reason=reason,
            search=_search(tuning),
            seed=tuning.seed,
            backbone=tuning.backbone,
            snapshot=SnapshotOut(
                id=snapshot.id,
                digest=snapshot.digest,
                images=snapshot.image_count,
                classes=[spec["name"] for spec in snapshot.classes],
            ),
            progress=None if tuning.progress is None else ProgressOut(**tuning.progress),
            failure=None if tuning.failure is None else FailureOut(**tuning.failure),
            model=None if version is None else VersionRef(id=version.id, version=version.number),
            warnings=[one.sentence for one in found or () if one.severity == "serious"],
            findings=found,
            requested_by=tuning.requested_by,
            created_at=tuning.created_at,
            started_at=tuning.started_at,
            finished_at=tuning.finished_at,
        )


def _search(tuning: Tuning) -> SearchOut | None:
    search = search_of(tuning)
    if search is None:
        return None
    return SearchOut(
        minutes=search["budget"]["minutes"],
        trials=search["budget"]["trials"],
        spent_seconds=search["spent_seconds"],
        choice=None if search["choice"] is None else Choice.model_validate(search["choice"]),
    )


def _chosen(tuning: Tuning, recipe: Recipe) -> tuple[RecipeFrom, str]:
    """Say where the recipe comes from, and why it is this one."""
    search = _search(tuning)
    if search is not None:
        if search.choice is not None:
            return "search", search.choice.reason
        return "search", "It is being searched for; until then `auto` stands here."
    default = Recipe().model_dump()
    given = [name for name, value in recipe.model_dump().items() if value != default[name]]
    if not given:
        return "auto", _AUTO
    return "given", f"Given; it differs from `auto` in {', '.join(given)}."
