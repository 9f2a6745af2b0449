"""What a version has to show before it is promoted: a project's own rules, else the box's."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import BadReference
from app.core.settings import GateSettings
from models.classes import normalise_name
from models.names import printable

Margin = Annotated[float, Field(ge=0, le=0.5, allow_inf_nan=False, strict=True)]
Floor = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]
Inconclusive = Literal["allow", "block"]


class GatePolicy(BaseModel):
    """The rules of promotion.

    Attributes:
        enabled: a version needs to pass gates before it answers in production.
        margin: so much macro accuracy may be lost, and it still counts as not worse.
        inconclusive: whether what the images are too few for stands in the way.
        floors: the least accuracy of a class, by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    margin: Margin = 0.05
    inconclusive: Inconclusive = "allow"
    floors: dict[str, Floor] = Field(default_factory=dict)

    @classmethod
    def of(cls, stored: Mapping[str, Any], settings: GateSettings) -> "GatePolicy":
        """Return a project's rules: its own, else those of the box."""
        box = {
            "enabled": settings.enabled,
            "margin": settings.margin,
            "inconclusive": settings.inconclusive,
        }
        return cls.model_validate(box | dict(stored))

    def floor(self, name: str) -> float | None:
        """Return the least accuracy of the class of that name, None where there is none."""
        known = {normalise_name(each): floor for each, floor in self.floors.items()}
        return known.get(normalise_name(name))


def changed_rules(
    stored: Mapping[str, Any], given: Mapping[str, Any], classes: Sequence[str]
) -> dict[str, Any]:
    """Return a project's rules with those that are given; None takes the box's again.

    Raises:
        BadReference: a floor of a class that the project has not.
    """
    known = {normalise_name(name) for name in classes}
    for name in given.get("floors") or {}:
        if normalise_name(name) not in known:
            shown = ", ".join(repr(each) for each in classes) or "none"
            raise BadReference(
                f"The project has no class {printable(name)!r} to have a floor; it has {shown}.",
                fix="Name one of them.",
                field="gates.floors",
            )
    return {name: value for name, value in {**stored, **given}.items() if value is not None}
