"""From the figures of a contest to verdicts, by the rules as they are now.

A margin that is changed later needs no other contest: the figures stay what they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from app.projects.gate_policy import GatePolicy
from models.classes import ClassSpec
from models.dataset import MIN_HOLDOUT_GROUPS
from models.evaluation.contest import GateResult, Opponent

Verdict = Literal["pass", "fail", "inconclusive"]

_CALLED = {
    "production": "what is in production",
    "zero-shot": "the backbone without tuning",
    "linear-probe": "a linear probe on its images",
}


class Gate(NamedTuple):
    """One thing that a version has to show.

    Attributes:
        name: `production`, `zero-shot`, `linear-probe`, `coverage`, or `floor: ` and a class.
        verdict: `inconclusive` where the images are too few to say.
        value, low, high: what was found, with its 95 % interval where there is one.
        limit: what it is held against.
        detail: the same in a sentence.
    """

    name: str
    verdict: Verdict
    value: float
    low: float | None
    high: float | None
    limit: float
    detail: str


def judge(
    result: GateResult,
    metrics: Mapping[str, Any],
    classes: Sequence[ClassSpec],
    policy: GatePolicy,
) -> list[Gate]:
    """Return the gates of a version.

    Args:
        result: of its contest.
        metrics: of its tuning, which say whether its sets of classes cover.
        classes: of the version.
        policy: margin and floors.
    """
    few = min(result.groups) < MIN_HOLDOUT_GROUPS
    gates = [_not_worse(each, policy.margin, few=few) for each in result.opponents]
    covers = _covers(metrics)
    if covers is not None:
        gates.append(covers)
    for spec, share in zip(classes, result.candidate.per_class, strict=True):
        floor = policy.floor(spec.name)
        if floor is not None:
            verdict = _above(share.low, share.high, floor)
            detail = (
                f"{spec.name!r}: {share.value:.1%} of its images right"
                f" ({share.low:.1%} to {share.high:.1%}); at least {floor:.1%} is asked for."
            )
            gates.append(
                Gate(
                    f"floor: {spec.name}",
                    verdict,
                    share.value,
                    share.low,
                    share.high,
                    floor,
                    detail,
                )
            )
    return gates


def overall(gates: Sequence[Gate]) -> Verdict:
    """Return the worst verdict of all."""
    verdicts = {gate.verdict for gate in gates}
    if "fail" in verdicts:
        return "fail"
    return "inconclusive" if "inconclusive" in verdicts else "pass"


def in_the_way(gates: Sequence[Gate], policy: GatePolicy) -> list[Gate]:
    """Return the gates that keep a version out of production."""
    stops = {"fail"} if policy.inconclusive == "allow" else {"fail", "inconclusive"}
    return [gate for gate in gates if gate.verdict in stops]


def _not_worse(opponent: Opponent, margin: float, *, few: bool) -> Gate:
    gap = opponent.difference
    verdict = "inconclusive" if few else _above(gap.low, gap.high, -margin, strictly=True)
    detail = (
        f"{100 * gap.value:+.1f} points of macro accuracy ({100 * gap.low:+.1f} to"
        f" {100 * gap.high:+.1f}) against {_CALLED[opponent.name]}, which has"
        f" {opponent.macro.value:.1%}; no more than {100 * margin:.1f} may be lost."
    )
    if few:
        detail += f" A class has images of fewer than {MIN_HOLDOUT_GROUPS} parts."
    return Gate(opponent.name, verdict, gap.value, gap.low, gap.high, -margin, detail)


def _above(low: float, high: float, limit: float, *, strictly: bool = False) -> Verdict:
    """Say whether an interval is above a limit, below it, or around it."""
    if low > limit or (low == limit and not strictly):
        return "pass"
    return "fail" if high < limit else "inconclusive"


def _covers(metrics: Mapping[str, Any]) -> Gate | None:
    """Judge the coverage that the tuning measured, of versions whose answers are sets of classes.

    None where nothing is known of it: older versions have no such rule.
    """
    trust = metrics.get("trust")
    found = trust.get("coverage") if isinstance(trust, Mapping) else None
    if not isinstance(trust, Mapping) or found is None:
        return None
    shown = found if isinstance(found, Mapping) else {"value": found}
    value = shown.get("value")
    if not isinstance(value, int | float):
        return None
    low, high = shown.get("low"), shown.get("high")
    target = float(trust.get("target") or 1 - float(trust.get("alpha") or 0.1))
    if low is None or high is None:
        verdict: Verdict = "pass" if value >= target else "inconclusive"
    else:
        verdict = "pass" if value >= target else _above(float(low), float(high), target)
    detail = f"Its sets of classes hold the true one {value:.1%} of the time; {target:.1%} is said."
    return Gate("coverage", verdict, float(value), low, high, target, detail)
