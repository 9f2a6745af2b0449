"""What a factory asks of decisions: how sure, at what cost, with how many mistakes at most."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.classes import Role
from models.errors import BadInput

_SHOWN = 100
_UNKNOWN_COST: Final = 1.0


def _refuse_cost(value: float, what: str, field: str) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise BadInput(
            f"{what} is {value}; a cost is a number, 0 or more.",
            fix="Give all costs in one unit: money, or multiples of a false alarm.",
            field=field,
        )
    return value


class ClassCosts(BaseModel):
    """What wrong decisions on parts of a class cost.

    Attributes:
        miss: of calling it ok, where its role is ng.
        false_alarm: of calling it ng, where its role is ok.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    miss: float = Field(_UNKNOWN_COST, json_schema_extra={"minimum": 0})
    false_alarm: float = Field(_UNKNOWN_COST, json_schema_extra={"minimum": 0})

    @field_validator("miss", "false_alarm")
    @classmethod
    def _check_cost(cls, value: float, info: Any) -> float:
        name = info.field_name
        return _refuse_cost(value, f"The cost {name}", f"decisions.costs.{name}")


class Budget(BaseModel):
    """How many wrong decisions there may be at most.

    Attributes:
        missed_ng: of all ng parts, the share that is called ok.
        false_alarms: of all ok parts, the share that is called ng.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    missed_ng: float | None = None
    false_alarms: float | None = None

    @field_validator("missed_ng", "false_alarms")
    @classmethod
    def _check_share(cls, value: float | None, info: Any) -> float | None:
        if value is not None and not 0 < value < 1:
            raise BadInput(
                f"The budget {info.field_name} is {value}; a share between 0 and 1 is expected.",
                fix="Give 0.05 for 5 %.",
                field=f"decisions.budget.{info.field_name}",
            )
        return value

    def of(self, role: Role) -> float | None:
        """Return the share of parts of a role that may be called the opposite."""
        return {"ng": self.missed_ng, "ok": self.false_alarms, "other": None}[role]


class DecisionPolicy(BaseModel):
    """What a project asks of decisions.

    Attributes:
        alpha: about so large a share of images may have a prediction set without their true class.
        costs: by class name; 1 where nothing is said.
        review: cost of having a person look. With it the decision is the one that is expected to
            cost least, a person among the choices (Chow 1970).
        budget: moves the thresholds of the roles that it speaks of.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "alpha": 0.1,
                    "costs": {"scratch": {"miss": 50.0}, "good": {"false_alarm": 2.0}},
                    "review": 0.5,
                    "budget": {"missed_ng": 0.05},
                }
            ]
        },
    )

    alpha: float = Field(0.1, json_schema_extra={"exclusiveMinimum": 0, "exclusiveMaximum": 1})
    costs: dict[str, ClassCosts] = Field(default_factory=dict, max_length=1000)
    review: float | None = Field(None, json_schema_extra={"minimum": 0})
    budget: Budget = Budget()

    @field_validator("alpha")
    @classmethod
    def _check_alpha(cls, alpha: float) -> float:
        if not 0 < alpha < 1:
            raise BadInput(
                f"alpha is {alpha}; a share between 0 and 1 is expected, both ends excluded.",
                fix="Give 0.1 for sets that miss the true class in about one image of ten.",
                field="decisions.alpha",
            )
        return alpha

    @field_validator("review")
    @classmethod
    def _check_review(cls, review: float | None) -> float | None:
        return None if review is None else _refuse_cost(review, "review", "decisions.review")

    @model_validator(mode="after")
    def _check_costs(self) -> "DecisionPolicy":
        if self.costs and self.review is None:
            raise BadInput(
                "Costs are given, and review is not: a decision can only be weighed against what it"
                " costs to have a person look.",
                fix="Give review in the same unit as the costs.",
                field="decisions.review",
            )
        return self

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "DecisionPolicy":
        """Validate what came from outside.

        Raises:
            BadInput: an unknown name, or a value out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise BadInput(
                f"The decisions' {field} is {repr(first['input'])[:_SHOWN]}: {first['msg']}.",
                fix=f"Known fields: {', '.join(cls.model_fields)}.",
                field=f"decisions.{field}",
            ) from error

    def cost(self, name: str) -> ClassCosts:
        """Return the costs of a class."""
        return self.costs.get(name, ClassCosts())


DEFAULT_POLICY: Final = DecisionPolicy()


def check_names(policy: DecisionPolicy, names: Sequence[str]) -> None:
    """Refuse costs of classes that are not there.

    Raises:
        BadInput: naming the first.
    """
    for name in policy.costs:
        if name not in names:
            raise BadInput(
                f"Costs are given for the class {name!r}, which is not there.",
                fix=f"Classes: {', '.join(names)[: _SHOWN * 5]}.",
                field="decisions.costs",
            )


def can_hold(share: float, groups: int) -> bool:
    """Say whether so few images of a role can ever reject it at the level `share`."""
    return 1 / (groups + 1) <= share


def check_budget(budget: Budget, groups: Mapping[Role, int], whose: str) -> None:
    """Refuse a budget that cannot be kept with the images there are.

    Args:
        budget: what is asked for.
        groups: of calibration images, of each role that has classes.
        whose: images they are, for people.

    Raises:
        BadInput: with the smallest budget possible, and what this one would take.
    """
    for role, name in (("ng", "missed_ng"), ("ok", "false_alarms")):
        share, count = budget.of(role), groups.get(role)
        if share is None or count is None or can_hold(share, count):
            continue
        needed = math.ceil(round(1 / share, 9)) - 1
        raise BadInput(
            f"A budget of {share:g} for {name} cannot be kept: {whose} {count} images of role"
            f" {role}, one of each part counted; with these {1 / (count + 1):.4f} is the smallest.",
            fix=f"Allow that much, or label {needed} images of role {role}, each of another part,"
            " and tune again.",
            field=f"decisions.budget.{name}",
        )
