"""From image features to what the line may conclude. No torch here: the gateway runs without it."""

from collections.abc import Collection, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from models.classes import ClassSpec, Role
from models.trust.evidence import Evidence, softmax
from models.trust.judge import ROLES, Case, Findings, Judge, find_all
from models.trust.photograph import PhotographStatistics
from models.trust.policy import DEFAULT_POLICY, DecisionPolicy, can_hold
from models.trust.reasons import Reason

Verdict = Literal["ok", "ng", "undecidable"]


class Label(NamedTuple):
    """What a decision needs to know of a class; a `ClassSpec` will do as well."""

    name: str
    role: Role


class LabelProbability(NamedTuple):
    """A class and how probable the model holds it."""

    label: str
    probability: float


class Decision(NamedTuple):
    """What a prediction answers.

    Attributes:
        decision: what the line may conclude.
        reason: why, see `models.trust.reasons`.
        label: the most probable class; of a decision, the most probable one that leads to it.
        probability: of that class.
        probabilities: the most probable classes, highest first.
        prediction_set: the classes that the image could be of, most probable first; without a rule
            the most probable one.
    """

    decision: Verdict
    reason: Reason
    label: str
    probability: float
    probabilities: list[LabelProbability]
    prediction_set: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON shows it."""
        return self._asdict() | {"probabilities": [one._asdict() for one in self.probabilities]}


class _Concluded(NamedTuple):
    verdict: Verdict
    reason: Reason


def class_probabilities(
    features: Float[np.ndarray, "n dim"],
    embeddings: Float[np.ndarray, "n_classes dim"],
    logit_scale: float,
) -> Float[np.ndarray, "n n_classes"]:
    """Return the softmax of the scaled cosines."""
    return softmax(logit_scale * (features @ embeddings.T))


def decide(
    classes: Sequence[ClassSpec | Label],
    evidence: Evidence,
    *,
    judge: Judge | None = None,
    policy: DecisionPolicy = DEFAULT_POLICY,
    photograph: PhotographStatistics | None = None,
    top_k: int | None = None,
) -> Decision:
    """Turn the evidence of an image into what the line may conclude.

    Args:
        classes: of the model, in its order.
        evidence: what the model says of the image.
        judge: the model's decision rule; without one the most probable class decides.
        policy: what the project asks of decisions.
        photograph: the image's statistics; None where they are not to count.
        top_k: so many classes are listed; None for all.
    """
    roles = tuple(spec.role for spec in classes)
    (found,) = find_all([evidence], [case_of(roles, judge, policy, photograph)])
    return conclude(classes, found, policy, top_k=top_k)


def case_of(
    roles: tuple[Role, ...],
    judge: Judge | None,
    policy: DecisionPolicy,
    photograph: PhotographStatistics | None,
) -> Case | None:
    """Return what an image is judged by; None where the model has no rule. See `decide`."""
    if judge is None:
        return None
    return Case(judge, roles, policy.alpha, photograph)


def conclude(
    classes: Sequence[ClassSpec | Label],
    found: Findings,
    policy: DecisionPolicy = DEFAULT_POLICY,
    *,
    top_k: int | None = None,
) -> Decision:
    """Apply a policy to what was found of an image."""
    # Of a few classes, Python's own lists are faster than arrays.
    shares = found.probabilities.tolist()
    order = sorted(range(len(shares)), key=shares.__getitem__, reverse=True)
    inside = _inside(found, order[0], policy.alpha)
    concluded = _conclude(classes, found, inside, policy)
    label = _label(classes, order, inside, concluded.verdict)
    return Decision(
        decision=concluded.verdict,
        reason=concluded.reason,
        label=classes[label].name,
        probability=shares[label],
        probabilities=[
            LabelProbability(classes[index].name, shares[index]) for index in order[:top_k]
        ],
        prediction_set=[classes[index].name for index in order if inside[index]],
    )


def _inside(found: Findings, best: int, alpha: float) -> list[bool]:
    """Say of each class whether it is in the prediction set."""
    if found.p_values is not None:
        inside: list[bool] = (found.p_values > alpha).tolist()
        return inside
    return [place == best for place in range(len(found.probabilities))]


def _label(
    classes: Sequence[ClassSpec | Label],
    order: Sequence[int],
    inside: Sequence[bool],
    verdict: Verdict,
) -> int:
    """Return the class to name: one that leads to the decision, of the set if there is one."""
    leading = [index for index in order if classes[index].role == verdict]
    return next((index for index in leading if inside[index]), (leading or order)[0])


def _conclude(
    classes: Sequence[ClassSpec | Label],
    found: Findings,
    inside: Sequence[bool],
    policy: DecisionPolicy,
) -> _Concluded:
    roles = {spec.role for spec, member in zip(classes, inside, strict=True) if member}
    against: Reason | None = found.unlike
    if against is None and not roles:
        against = "no_class_fits"
    if against is None and "other" in roles:
        against = "role_other"
    if against is not None:
        return _Concluded("undecidable", against)
    possible, unheld = _possible_roles(classes, found, roles, policy)
    if policy.review is not None:
        return _least_cost(classes, found, possible, policy)
    if len(possible) == 1:
        verdict: Verdict = "ok" if "ok" in possible else "ng"
        return _Concluded(verdict, "certain" if found.p_values is not None else "most_probable")
    if len(possible) == 2 and not can_hold(policy.alpha, sum(found.groups)):
        return _Concluded("undecidable", "too_few_images")
    return _Concluded("undecidable", _why_not(roles, possible, unheld=unheld))


def _why_not(roles: Collection[Role], possible: Collection[Role], *, unheld: bool) -> Reason:
    """Return why it is not to be decided which of several roles, or of none, an image has."""
    if not possible:
        return "no_class_fits"
    if unheld:
        return "budget_not_held"
    return "mixed_roles" if set(possible) <= set(roles) else "budget"


def _possible_roles(
    classes: Sequence[ClassSpec | Label],
    found: Findings,
    roles: Collection[Role],
    policy: DecisionPolicy,
) -> tuple[set[Role], bool]:
    """Return which of ok and ng the image may be, and whether a budget forces one of them.

    A role is possible where the set has a class of it; under a budget, unless its own p-value is as
    low as the budget. Where so few images can never reject it, it is always possible: no promise is
    broken in silence.
    """
    possible: set[Role] = set(roles) - {"other"}
    unheld = False
    for place, role in enumerate(ROLES[:2]):
        share = policy.budget.of(role)
        if share is None or all(spec.role != role for spec in classes):
            continue
        held = found.role_p_values is not None and can_hold(share, found.groups[place])
        if held and found.role_p_values is not None and found.role_p_values[place] <= share:
            possible.discard(role)
        else:
            possible.add(role)
            unheld |= not held
    return possible, unheld


def _least_cost(
    classes: Sequence[ClassSpec | Label],
    found: Findings,
    possible: Collection[Role],
    policy: DecisionPolicy,
) -> _Concluded:
    """Return the decision that is expected to cost least, where the budget allows it.

    A class of role other costs as much as an error in either direction.
    """
    missed = alarmed = 0.0
    for spec, probability in zip(classes, found.probabilities.tolist(), strict=True):
        cost = policy.cost(spec.name)
        missed += probability * cost.miss * (spec.role != "ok")
        alarmed += probability * cost.false_alarm * (spec.role != "ng")
    assert policy.review is not None  # noqa: S101 - asked for by the caller
    if policy.review <= min(missed, alarmed):
        return _Concluded("undecidable", "review_costs_less")
    verdict: Verdict = "ok" if missed < alarmed else "ng"
    against: Role = "ng" if verdict == "ok" else "ok"
    if policy.budget.of(against) is not None and against in possible:
        return _Concluded("undecidable", "budget")
    return _Concluded(verdict, "least_cost")
