"""What wrong decisions cost a line, per 1,000 parts of a kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.evaluation.proportions import proportion
from models.evaluation.results import Proportion
from models.language import ENGLISH, Language
from models.report.data import ReportData
from models.report.results import outcomes

Kind = Literal["miss", "alarm", "undecided"]
_DECIDED = {"ng": "ok", "ok": "ng"}
_KINDS: dict[str, Kind] = {"ng": "miss", "ok": "alarm"}


@dataclass(frozen=True)
class Cost:
    """Something that a line pays for.

    Attributes:
        kind: an ng part let through, an ok part stopped, or one left to a person.
        of: which parts it is counted among, in words.
        count: how often it was seen.
        total: among so many photographs.
        share: the same as a share.
        each: what one costs, where somebody has said so.
    """

    kind: Kind
    of: str
    count: int
    total: int
    share: Proportion
    each: float | None = None

    @property
    def per_thousand(self) -> Proportion | None:
        """What 1,000 parts cost; its interval is that of the share."""
        if self.each is None:
            return None
        factor, share = 1000 * self.each, self.share
        return Proportion(
            value=factor * share.value, low=factor * share.low, high=factor * share.high
        )


def costs(data: ReportData, language: Language = ENGLISH) -> list[Cost]:
    """Return misses and false alarms of all parts, then of the classes with a cost of their own.

    What was left undecided stands last, where a rule decides.
    """
    rows = [
        Cost(
            "miss" if it.kind == "miss" else "alarm",
            language.say("costs.of.ng" if it.kind == "miss" else "costs.of.ok"),
            it.count,
            it.total,
            it.share,
        )
        for it in outcomes(data.header.classes, data.tuned)
    ]
    rows += _of_classes(data, language)
    if (trust := data.trust) is not None:
        left = trust.n_images - round(trust.decided.value * trust.n_images)
        share = proportion(left, trust.n_images)
        of = language.say("costs.of.all")
        rows.append(Cost("undecided", of, left, trust.n_images, share, data.policy.review))
    return rows


def _of_classes(data: ReportData, language: Language) -> list[Cost]:
    policy, rows = data.policy, []
    for index, spec in enumerate(data.header.classes):
        if spec.name not in policy.costs or spec.role not in _KINDS:
            continue
        counts: Sequence[int] = data.tuned.confusion[index]
        count = sum(
            number
            for number, other in zip(counts, data.header.classes, strict=True)
            if other.role == _DECIDED[spec.role]
        )
        total = sum(counts)
        of = language.say("costs.of.class", name=spec.name)
        given = policy.cost(spec.name)
        each = given.miss if spec.role == "ng" else given.false_alarm
        rows.append(Cost(_KINDS[spec.role], of, count, total, proportion(count, total), each))
    return rows
