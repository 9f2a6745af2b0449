"""Projects and classes as JSON."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StrictBool

from app.core.settings import MOST_DAYS
from app.core.tables import KeepImages, Split
from app.projects.decisions import policy_of
from app.projects.gate_policy import Floor, Inconclusive, Margin
from app.projects.service import ClassView, ProjectView, view_of
from models.classes import ClassSpec, Role, class_spec
from models.imaging import DECODER_VERSION, View
from models.trust.policy import DecisionPolicy

_PROJECT = "01a20b48-d9d8-77c9-9f13-d3234f8739ae"
_CLASS = "01a20b48-da01-7d31-8e5d-1c0b7a5f9e21"
_VIEW = {"roi": None, "resize": "fit", "decoder": DECODER_VERSION}

# Told to callers and checked by the services, whose refusals say more than a schema's.
_SHAPE: dict[str, JsonValue] = {"minLength": 1, "maxLength": 100, "pattern": r"[^\s_\-]"}

Name = Annotated[
    str,
    Field(
        description="1 to 100 characters in any language, emoji too; no control characters.",
        json_schema_extra=_SHAPE,
    ),
]
ProjectName = Annotated[
    str,
    Field(
        description="1 to 100 characters in any language, emoji too; no control characters.",
        json_schema_extra=_SHAPE | {"pattern": r"\S"},
    ),
]
PromptName = Annotated[
    str, Field(description="English, what the text encoder reads.", json_schema_extra=_SHAPE)
]
RoleField = Annotated[
    Role,
    Field(
        description="What the line may conclude: `ok` lets a part pass, `ng` stops it,"
        " `other` makes the decision `undecidable`."
    ),
]


class ClassIn(BaseModel):
    """A class to be added."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "傷", "prompt_name": "scratch", "role": "ng"}, {"name": "good"}]
        },
    )

    name: Name
    prompt_name: PromptName | None = Field(None, description="Default: the name.")
    role: RoleField | None = Field(
        None, description="Default: `ok` for ok, good, normal, nominal and free, else `ng`."
    )

    def spec(self) -> ClassSpec:
        """Return it validated, with what was not given filled in."""
        return class_spec(self.name, prompt_name=self.prompt_name, role=self.role)


class ClassChange(BaseModel):
    """What to change of a class; it counts from the next tuning."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"prompt_name": "scratched metal"}]}
    )

    name: Name | None = None
    prompt_name: PromptName | None = None
    role: RoleField | None = None


class ClassOrder(BaseModel):
    """Every class of the project, once, in the new order."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"classes": [_CLASS]}]}
    )

    classes: list[UUID] = Field(max_length=1000)


class ClassOut(BaseModel):
    """A class of a project."""

    id: UUID = Field(examples=[_CLASS])
    name: str = Field(examples=["傷"])
    prompt_name: str = Field(examples=["scratch"])
    role: RoleField = Field(examples=["ng"])
    images: dict[Split, int] = Field(
        description="Images by split.", examples=[{"train": 16, "holdout": 5}]
    )

    @classmethod
    def of(cls, found: ClassView) -> Self:
        """Return the class as JSON shows it."""
        row = found.row
        return cls(
            id=row.id,
            name=row.name,
            prompt_name=row.prompt_name,
            role=row.role,
            images=found.images,
        )


class ProjectIn(BaseModel):
    """A project to be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "Housing, top side",
                    "classes": [
                        {"name": "good"},
                        {"name": "傷", "prompt_name": "scratch", "role": "ng"},
                    ],
                }
            ]
        },
    )

    name: ProjectName
    classes: list[ClassIn] = Field(default_factory=list, max_length=1000)
    view: View | None = Field(None, description="How images are looked at.", examples=[_VIEW])
    keep_images: KeepImages = Field(
        "undecidable", description="Which predicted images are kept, under a quota."
    )
    decisions: DecisionPolicy | None = Field(
        None, description="What is asked of decisions, see docs/decisions.md."
    )


def _days(value: object) -> object:
    """Refuse what is no rule in one sentence, not in one for each form that there is."""
    plain = type(value) is int and 1 <= value <= MOST_DAYS
    if plain or value is None or value == "default":
        return value
    raise ValueError(
        f"a whole number of days from 1 to {MOST_DAYS}, null (for ever) or 'default' (as the box's"
        " settings say) is expected"
    )


Days = Annotated[
    Annotated[int, Field(ge=1, le=MOST_DAYS)] | Literal["default"] | None, BeforeValidator(_days)
]


class Retention(BaseModel):
    """How long predictions are kept; labelled images, snapshots and versions always are."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"predictions_days": 365, "images_days": 90}]},
    )

    predictions_days: Days = Field(
        "default",
        description="Days after which a record is deleted, with its image; null: never;"
        " `default`: as the box's settings say.",
    )
    images_days: Days = Field(
        "default", description="Days after which an image kept with a prediction is, likewise."
    )

    def given(self) -> dict[str, int | Literal["default"] | None]:
        """Return what the caller gave."""
        return self.model_dump(exclude_unset=True)


class GateRules(BaseModel):
    """What a version has to show before it is promoted; what is null is as the box's settings say.

    See `GET /v1/models/{model}/gates`.
    """

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"margin": 0.03, "floors": {"傷": 0.9}}]}
    )

    enabled: StrictBool | None = Field(None, description="Gates stand before `production`.")
    margin: Margin | None = Field(
        None, description="So much macro accuracy may be lost, and it still counts as not worse."
    )
    inconclusive: Inconclusive | None = Field(
        None, description="Whether what the images are too few for stands in the way."
    )
    floors: dict[str, Floor] | None = Field(
        None, max_length=1000, description="The least accuracy of a class, by its name."
    )

    def given(self) -> dict[str, Any]:
        """Return what the caller gave."""
        return self.model_dump(exclude_unset=True)


class FreezeOut(BaseModel):
    """Who stopped all changes, when and why."""

    reason: str = Field(examples=["customer audit"])
    at: datetime
    by: UUID | None = Field(None, description="The API key.")
    name: str = Field(description="The key's name at that time.", examples=["night shift"])


class FreezeIn(BaseModel):
    """Why all changes are to stop."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "customer audit"}]}
    )

    reason: str = Field(max_length=500, examples=["customer audit"])


class ProjectChange(BaseModel):
    """What to change of a project; a new view counts from the next tuning."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"view": {"roi": [0.1, 0.1, 0.9, 0.9]}, "keep_images": "all"}]
        },
    )

    name: ProjectName | None = None
    view: View | None = None
    keep_images: KeepImages | None = None
    decisions: DecisionPolicy | None = Field(
        None, description="Replaces the whole policy; it counts within a second."
    )
    retention: Retention | None = None
    gates: GateRules | None = None


class ProjectOut(BaseModel):
    """A project."""

    id: UUID = Field(examples=[_PROJECT])
    name: str = Field(examples=["Housing, top side"])
    classes: list[ClassOut]
    classes_frozen: bool = Field(
        description="True from the first tuning on: no class is added, removed or moved any more."
    )
    view: View = Field(examples=[_VIEW])
    keep_images: KeepImages = Field(examples=["undecidable"])
    decisions: DecisionPolicy
    retention: Retention
    gates: GateRules = Field(description="Those that are not the box's.")
    shadow: bool = Field(
        description="The candidate answers beside production; its answers count for nothing."
    )
    freeze: FreezeOut | None = Field(None, description="All changes are stopped.")
    created_at: datetime

    @classmethod
    def of(cls, found: ProjectView) -> Self:
        """Return the project as JSON shows it."""
        row = found.row
        return cls(
            id=row.id,
            name=row.name,
            classes=[ClassOut.of(entry) for entry in found.classes],
            classes_frozen=found.frozen,
            view=view_of(row),
            keep_images=row.keep_images,
            decisions=policy_of(row),
            retention=Retention(**row.retention),
            gates=GateRules(**row.gates),
            shadow=row.shadow,
            freeze=None if row.frozen is None else FreezeOut(**row.frozen),
            created_at=row.created_at,
        )
