"""Results over seeds: means with their spread, and how accuracy goes with collapse.

No torch here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata, t

from models.bench.cells import ACROSS, is_target
from models.bench.results import CellResult, harmonic_mean

Distance = Literal["text_nc2", "text_to_image_nc3"]

_CONFIDENCE = 0.95
# Rank correlations of fewer points say nothing.
_FEWEST_POINTS = 4


class Setting(NamedTuple):
    """What methods are compared within."""

    dataset: str
    protocol: str
    shots: int
    tau: float

    @classmethod
    def of(cls, row: CellResult) -> "Setting":
        """Return the setting of a result."""
        return cls(row.dataset, row.protocol, row.shots, row.tau)


@dataclass(frozen=True)
class Spread:
    """Values over seeds.

    Attributes:
        mean: of the values.
        std: sample standard deviation; `None` for one value.
        margin: half of the 95 % interval of the mean (Student's t); `None` for one value.
        n: how many values.
    """

    mean: float
    std: float | None
    margin: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Return the spread of the values that are there; `None` where none is."""
        known = [value for value in values if value is not None]
        n = len(known)
        if n == 0:
            return None
        mean = math.fsum(known) / n
        if n == 1:
            return cls(mean, None, None, n)
        std = float(np.std(known, ddof=1))
        return cls(mean, std, float(t.ppf((1 + _CONFIDENCE) / 2, n - 1)) * std / math.sqrt(n), n)


@dataclass(frozen=True)
class MethodSummary:
    """A method in a setting, over its seeds; `h` is of the means over seeds."""

    setting: Setting
    method: str
    top1: Spread | None
    macro: Spread | None
    tail_macro: Spread | None
    worst_class: Spread | None
    base: Spread | None
    novel: Spread | None
    h: float | None
    ece: Spread | None
    tune_seconds: Spread | None

    @property
    def rank(self) -> float:
        """What methods are sorted by: H where there is one, else the mean accuracy of classes."""
        if self.h is not None:
            return self.h
        return -1.0 if self.macro is None or self.base is not None else self.macro.mean


def summarise(results: Sequence[CellResult]) -> dict[Setting, list[MethodSummary]]:
    """Return the methods of each setting, the best first; settings in their order of appearance."""
    rows: dict[tuple[Setting, str], list[CellResult]] = {}
    for row in results:
        rows.setdefault((Setting.of(row), row.method), []).append(row)
    summaries: dict[Setting, list[MethodSummary]] = {}
    for (setting, method), members in rows.items():
        summaries.setdefault(setting, []).append(_summary(setting, method, members))
    return {s: sorted(m, key=lambda one: -one.rank) for s, m in summaries.items()}


def over_datasets(results: Sequence[CellResult]) -> dict[Setting, list[MethodSummary]]:
    """Return the same for the mean over the data sets, seed by seed.

    A method that lacks a result on a set has no mean. Across data sets and domains, the mean is
    over the targets.
    """
    sets: dict[tuple[str, int, float], set[str]] = {}
    rows: dict[tuple[str, int, float, str, int], list[CellResult]] = {}
    for row in results:
        if row.protocol in ACROSS and not is_target(row.dataset):
            continue
        group = (row.protocol, row.shots, row.tau)
        sets.setdefault(group, set()).add(row.dataset)
        rows.setdefault((*group, row.method, row.seed), []).append(row)
    merged = [
        _mean_row(members, f"mean of {len(sets[key[:3]])} sets")
        for key, members in rows.items()
        if len(members) == len(sets[key[:3]])
    ]
    return summarise(merged)


def _mean_row(rows: Sequence[CellResult], name: str) -> CellResult:
    means = {
        field: _mean([getattr(row, field) for row in rows])
        for field in ("top1", "macro", "tail_macro", "worst_class", "base", "novel", "ece")
    }
    return rows[0].model_copy(update={"dataset": name, **means})


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; `None` where a value is missing, since the others would not compare."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _summary(setting: Setting, method: str, rows: Sequence[CellResult]) -> MethodSummary:
    base, novel = Spread.of(r.base for r in rows), Spread.of(r.novel for r in rows)
    return MethodSummary(
        setting=setting,
        method=method,
        top1=Spread.of(r.top1 for r in rows),
        macro=Spread.of(r.macro for r in rows),
        tail_macro=Spread.of(r.tail_macro for r in rows),
        worst_class=Spread.of(r.worst_class for r in rows),
        base=base,
        novel=novel,
        h=harmonic_mean(base.mean, novel.mean) if base and novel else None,
        ece=Spread.of(r.ece for r in rows),
        tune_seconds=Spread.of(r.seconds.tune for r in rows),
    )


class Point(NamedTuple):
    """A result in the picture of collapse against accuracy."""

    setting: Setting
    method: str
    distance: float
    accuracy: float


def points(results: Sequence[CellResult], distance: Distance) -> list[Point]:
    """Return the results that have a distance and an accuracy.

    The accuracy is that on the novel classes with base-to-novel, else the mean of the classes'.
    """
    found = []
    for row in results:
        x = getattr(row.nc, distance)
        y = row.novel if row.protocol == "base-to-novel" else row.macro
        if x is not None and y is not None:
            found.append(Point(Setting.of(row), row.method, x, y))
    return found


class Correlation(NamedTuple):
    """Spearman's rho of so many points; `None` where it is not defined."""

    rho: float | None
    n: int


def spearman(members: Sequence[Point]) -> Correlation:
    """Return Spearman's rho, with ranks taken within each setting.

    With one setting that is Spearman's rho as ever. Of several it says how accuracy goes with
    distance between methods, and not between settings or data sets, which differ in both.
    """
    strata: dict[Setting, list[Point]] = {}
    for point in members:
        strata.setdefault(point.setting, []).append(point)
    distances = _centred_ranks([[p.distance for p in group] for group in strata.values()])
    accuracies = _centred_ranks([[p.accuracy for p in group] for group in strata.values()])
    if len(members) < _FEWEST_POINTS or not np.ptp(distances) or not np.ptp(accuracies):
        return Correlation(None, len(members))
    return Correlation(float(pearsonr(distances, accuracies).statistic), len(members))


def _centred_ranks(groups: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return ranks from -1/2 to 1/2 within each group; 0 in a group of one."""
    if not groups:
        return np.empty(0)
    return np.concatenate(
        [(rankdata(group) - (len(group) + 1) / 2) / max(1, len(group) - 1) for group in groups]
    )
