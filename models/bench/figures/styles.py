"""Which methods a picture tells apart, and what they look like in all of them."""

from collections.abc import Sequence

from models.bench.figures.svg import Style
from models.bench.results import CellResult
from models.bench.summary import Spread
from models.report.palette import SERIES

# Those that a reader looks for first.
_SOUGHT = ("auto", "coop", "zero-shot")


def focus(results: Sequence[CellResult]) -> dict[str, Style]:
    """Return the styles of as many methods as there are colours: the sought ones, then the best."""
    methods = list(dict.fromkeys(row.method for row in results))
    ranks = {method: _mean_accuracy(results, method) for method in methods}
    best = sorted(methods, key=lambda method: -ranks[method])
    chosen = [method for method in _SOUGHT if method in ranks]
    chosen += [method for method in best if method not in chosen]
    kept = sorted(chosen[: len(SERIES)], key=lambda method: -ranks[method])
    return {method: Style.of(index, SERIES) for index, method in enumerate(kept)}


def _mean_accuracy(results: Sequence[CellResult], method: str) -> float:
    found = Spread.of(row.macro for row in results if row.method == method)
    return -1.0 if found is None else found.mean
