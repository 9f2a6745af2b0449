"""What the default recipe has to show, and what it shows: `python -m benchmarks.verdict`.

Reads what `python -m benchmarks.science` wrote; computes nothing anew.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import mean
from typing import NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import base_novel_h, bench_rows
from models.baselines.zero_shot import ZeroShot
from models.bench.results import CellResult
from models.bench.summary import Spread
from models.methods.catalogue import AUTO, BASELINES

Scores = dict[str, dict[str, list[float]]]  # by method, by data set: of the seeds, in order


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
        paired = Spread.of(a - b for a, b in zip(ours, scores[best][name], strict=True))
        assert paired is not None  # noqa: S101 - ten seeds
        assert paired.margin is not None  # noqa: S101 - ten seeds
        low, high = paired.mean - paired.margin, paired.mean + paired.margin
        found = f"{low:+.1f} to {high:+.1f}"
        yield Target(f"tau 0.06, {name}: against {best}", "above -1.0", found, low >= -1.0)


def balanced() -> Iterator[Target]:
    """Not below the baseline that is best on average, and on no set below zero-shot."""
    for shots in (16, 4, 1):
        scores = _macros("balanced", lambda row, n=shots: row.shots == n)  # type: ignore[misc]
        best = _best_baseline(scores)
        ahead = _mean(scores, AUTO) - _mean(scores, best)
        yield Target(f"{shots} shots: above {best}", "+0.0", f"{ahead:+.1f}", ahead >= 0)
        least = min(mean(v) - mean(scores["zero-shot"][k]) for k, v in scores[AUTO].items())
        yield Target(f"{shots} shots: above zero-shot", "+0.0", f"{least:+.1f}", least >= 0)


def base_to_novel() -> Iterator[Target]:
    """The harmonic mean of the seeds' mean base and novel accuracies."""
    rows = bench_rows("base_to_novel")
    *_, ours = base_novel_h(rows, AUTO)
    for other in ("zero-shot", "coop", "kgcoop"):
        *_, theirs = base_novel_h(rows, other)
        found = f"{ours - theirs:+.1f} ({ours:.1f})"
        yield Target(f"base-to-novel H: above {other}", "+0.0", found, ours >= theirs)


def _macros(run: str, keep: Callable[[CellResult], bool] = lambda _: True) -> Scores:
    """Return macro accuracies in percent."""
    scores: Scores = defaultdict(lambda: defaultdict(list))
    for row in sorted(bench_rows(run), key=lambda row: row.seed):
        if row.macro is not None and keep(row):
            scores[row.method][row.dataset].append(100 * row.macro)
    return scores


def _mean(scores: Scores, method: str) -> float:
    return mean(mean(values) for values in scores[method].values())


def _best_baseline(scores: Scores) -> str:
    learnt = [n for n, kind in BASELINES.items() if n in scores and not isinstance(kind, ZeroShot)]
    return max(learnt, key=lambda method: _mean(scores, method))


if __name__ == "__main__":
    typer.run(main)
