"""What the default recipe has to show, and what it shows: `python -m benchmarks.verdict`.

Reads what `python -m benchmarks.science` wrote; computes nothing anew.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import mean, stdev
from typing import Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import t

from benchmarks.common import RESULTS
from models.baselines.zero_shot import ZeroShot
from models.methods.catalogue import AUTO, BASELINES

Row = dict[str, Any]
Scores = dict[str, dict[str, list[float]]]  # by method, by data set: of the seeds, in order
_CONFIDENCE = 0.95


class Target(NamedTuple):
    """What was to be shown, in points, and what was found."""

    what: str
    wanted: str
    found: str
    met: bool


def main() -> None:
    """Print the targets of the default recipe, each beside what was measured."""
    table = Table("target", "wanted", "found", "met", title=f"The default recipe, {AUTO}")
    for target in targets():
        table.add_row(target.what, target.wanted, target.found, "yes" if target.met else "no")
    Console().print(table)


def targets() -> Iterator[Target]:
    """Return all targets."""
    yield from unbalanced()
    yield from against_each_set()
    yield from balanced()
    yield from base_to_novel()


def unbalanced() -> Iterator[Target]:
    """Mean macro accuracy at tau 0.06, over CoOp and over the baseline that is best on average."""
    scores = _macros("unbalanced")
    best = _best_baseline(scores)
    for other, margin in (("coop", 8.0), (best, 2.0)):
        ahead = _mean(scores, AUTO) - _mean(scores, other)
        yield Target(f"tau 0.06: above {other}", f"{margin:+.1f}", f"{ahead:+.1f}", ahead >= margin)


def against_each_set() -> Iterator[Target]:
    """On no set worse than the best baseline by more than a point, in a paired interval."""
    scores = _macros("unbalanced_ten_seeds")
    best = _best_baseline(scores)
    for name, ours in scores[AUTO].items():
        low, high = paired_interval([a - b for a, b in zip(ours, scores[best][name], strict=True)])
        found = f"{low:+.1f} to {high:+.1f}"
        yield Target(f"tau 0.06, {name}: against {best}", "above -1.0", found, low >= -1.0)


def balanced() -> Iterator[Target]:
    """Not below the baseline that is best on average, and on no set below zero-shot."""
    for shots in (16, 4, 1):
        scores = _macros("balanced", lambda row, n=shots: row["shots"] == n)  # type: ignore[misc]
        best = _best_baseline(scores)
        ahead = _mean(scores, AUTO) - _mean(scores, best)
        yield Target(f"{shots} shots: above {best}", "+0.0", f"{ahead:+.1f}", ahead >= 0)
        least = min(mean(v) - mean(scores["zero-shot"][k]) for k, v in scores[AUTO].items())
        yield Target(f"{shots} shots: above zero-shot", "+0.0", f"{least:+.1f}", least >= 0)


def base_to_novel() -> Iterator[Target]:
    """The harmonic mean of the seeds' mean base and novel accuracies."""
    rows = _rows("base_to_novel")

    def harmonic(method: str) -> float:
        own = [row for row in rows if row["method"] == method]
        base, novel = (100 * mean(row[side] for row in own) for side in ("base", "novel"))
        return 2 * base * novel / (base + novel)

    ours = harmonic(AUTO)
    for other in ("zero-shot", "coop", "kgcoop"):
        ahead = ours - harmonic(other)
        found = f"{ahead:+.1f} ({ours:.1f})"
        yield Target(f"base-to-novel H: above {other}", "+0.0", found, ahead >= 0)


def paired_interval(differences: list[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean of paired differences."""
    count = len(differences)
    quantile = float(t.ppf((1 + _CONFIDENCE) / 2, count - 1))
    half = quantile * stdev(differences) / count**0.5
    return mean(differences) - half, mean(differences) + half


def _rows(run: str) -> list[Row]:
    rows: list[Row] = json.loads((RESULTS / f"bench_{run}.json").read_text())["results"]
    return rows


def _macros(run: str, keep: Callable[[Row], bool] = lambda _: True) -> Scores:
    """Return macro accuracies in percent."""
    scores: Scores = defaultdict(lambda: defaultdict(list))
    for row in sorted(_rows(run), key=lambda row: row["seed"]):
        if keep(row):
            scores[row["method"]][row["dataset"]].append(100 * row["macro"])
    return scores


def _mean(scores: Scores, method: str) -> float:
    return mean(mean(values) for values in scores[method].values())


def _best_baseline(scores: Scores) -> str:
    learnt = [n for n, kind in BASELINES.items() if n in scores and not isinstance(kind, ZeroShot)]
    return max(learnt, key=lambda method: _mean(scores, method))


if __name__ == "__main__":
    typer.run(main)
