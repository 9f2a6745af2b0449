"""What speaks against letting a version decide: it decides little, or hardly knows better.

No torch here: the gateway says so of a version that it has.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from models.classes import ClassSpec, Role
from models.evaluation.results import Evaluation, Proportion
from models.language import Language, Phrase, phrase
from models.learning_curve import LearningCurve
from models.trust.metrics import TrustMetrics

# Where most images go to people all the same, the line is staffed as it was before.
LEAST_DECIDED: Final = 0.5


class Measured(NamedTuple):
    """What was measured of a version's decisions.

    Attributes:
        decided: share of the images that were called ok or ng.
        right: share of those whose class has that role; None where none was decided.
        counts: of each class, how many images it was measured on.
        hardest: the class of which more images help most.
    """

    decided: Proportion
    right: Proportion | None
    counts: Sequence[int]
    hardest: str


def measured(
    classes: Sequence[ClassSpec],
    tuned: Evaluation,
    trust: TrustMetrics | None,
    curve: LearningCurve | None,
) -> Measured | None:
    """Return what the metrics of a tuning say; None without trust."""
    if trust is None:
        return None
    return Measured(
        trust.decided,
        trust.decided_accuracy,
        [sum(row) for row in tuned.confusion],
        _hardest(
            classes,
            [one.value for one in tuned.per_class],
            None if curve is None else curve.next_class,
        ),
    )


def measured_in(classes: Sequence[ClassSpec], metrics: Mapping[str, Any]) -> Measured | None:
    """Return the same of metrics as JSON, which may hold nulls elsewhere."""
    trust, tuned, curve = metrics.get("trust"), metrics["tuned"], metrics.get("learning_curve")
    if trust is None:
        return None
    right = trust["decided_accuracy"]
    return Measured(
        Proportion.model_validate(trust["decided"]),
        None if right is None else Proportion.model_validate(right),
        [sum(row) for row in tuned["confusion"]],
        _hardest(
            classes,
            [one["value"] for one in tuned["per_class"]],
            None if curve is None else curve["next_class"],
        ),
    )


def doubts(classes: Sequence[ClassSpec], found: Measured) -> list[list[Phrase]]:
    """Say what speaks against letting the version decide, and what helps; nothing where it may.

    Each doubt in sentences that belong together.

    Decisions are held against what anyone can do: to call every image by the larger role. Where
    the classes have but one of the roles ok and ng there is nothing to decide, and no doubt.
    """
    total = sum(found.counts)
    larger, base = larger_role(classes, found.counts)
    if not 0 < base < total:
        return []
    said = []
    if found.decided.value < LEAST_DECIDED:
        several = any(_having(classes, role) > 1 for role in ("ok", "ng"))
        fix = phrase("doubt.few.merge" if several else "doubt.few.more", label=found.hardest)
        said.append([phrase("doubt.few", decided=_of_hundred(found.decided)), fix])
    if found.right is not None and found.right.low <= base / total:
        shares = {"right": found.right.value, "low": found.right.low, "high": found.right.high}
        role = phrase(f"role.{larger}")
        chance = phrase("doubt.chance", base=base / total, role=role, **shares)
        said.append([chance, phrase("doubt.chance.fix")])
    return said


def warnings(classes: Sequence[ClassSpec], found: Measured | None, language: Language) -> list[str]:
    """Return the doubts in words, one after the other; none where nothing was measured."""
    return [] if found is None else [language.worded(one) for one in doubts(classes, found)]


def larger_role(classes: Sequence[ClassSpec], counts: Sequence[int]) -> tuple[Role, int]:
    """Return which of ok and ng most images have, and how many; 0 where a role has none."""
    by_role: dict[Role, int] = {"ok": 0, "ng": 0}
    for spec, count in zip(classes, counts, strict=True):
        if spec.role in by_role:
            by_role[spec.role] += count
    larger: Role = "ok" if by_role["ok"] > by_role["ng"] else "ng"
    return larger, by_role[larger] if all(by_role.values()) else 0


def _having(classes: Sequence[ClassSpec], role: Role) -> int:
    return sum(spec.role == role for spec in classes)


def _of_hundred(share: Proportion) -> int:
    """Return a share as so many of 100; below one half it is not rounded up to it."""
    return min(round(100 * share.value), 49)


def _hardest(classes: Sequence[ClassSpec], right: Sequence[float], following: int | None) -> str:
    """Return the class that the learning curve names, else the one that is told worst."""
    worst = min(range(len(classes)), key=lambda index: right[index])
    return classes[worst if following is None else following].name
