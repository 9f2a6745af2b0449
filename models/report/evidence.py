"""The mistakes, and whether their heat maps can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Final, Literal

from models.report.data import Heat, Mistake

Verdict = Literal["more", "same", "few"]

# A map is better than chance by chance half of the time; that so many are is a fluke this often.
_FLUKE: Final = 0.05


@dataclass(frozen=True)
class HeatCheck:
    """How the heat maps fare against random orders, together.

    Attributes:
        way: how the maps were made.
        hottest_first: mean area under the falling probability.
        random: the same of random orders.
        better: how many maps have the smaller one.
        total: how many maps there are.
        verdict: `more` than chance by a sign test, the `same`, or too `few` to tell.
    """

    way: str
    hottest_first: float
    random: float
    better: int
    total: int
    verdict: Verdict


def heat_check(mistakes: Sequence[Mistake]) -> HeatCheck | None:
    """Return how the maps fare together; `None` where there are none."""
    heats: list[Heat] = [one.heat for one in mistakes if one.heat is not None]
    if not heats:
        return None
    total, better = len(heats), sum(heat.better for heat in heats)
    few = 0.5**total > _FLUKE
    return HeatCheck(
        way=heats[0].way,
        hottest_first=sum(heat.hottest_first for heat in heats) / total,
        random=sum(heat.chance for heat in heats) / total,
        better=better,
        total=total,
        verdict="few" if few else "more" if _sign_test(better, total) <= _FLUKE else "same",
    )


def _sign_test(better: int, total: int) -> float:
    """Return how often so many or more of `total` coins would show heads."""
    return sum(comb(total, k) for k in range(better, total + 1)) / 2**total
