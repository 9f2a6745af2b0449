"""Which methods a picture tells apart, and what they look like in all of them."""

from collections.abc import Mapping, Sequence

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


def of_text(results: Sequence[CellResult], styles: Mapping[str, Style]) -> dict[str, Style]:
    """Return the styles of methods that read text; the others' go to further ones of these."""
    rows = [row for row in results if row.nc.text_to_image_nc3 is not None]
    ranked = list(focus(rows))
    kept = {method: style for method, style in styles.items() if method in ranked}
    free = [style for style in styles.values() if style not in kept.values()]
    more = [method for method in ranked if method not in kept]
    return kept | dict(zip(more, free, strict=False))


def _mean_accuracy(results: Sequence[CellResult], method: str) -> float:
    found = Spread.of(row.macro for row in results if row.method == method)
    return -1.0 if found is None else found.mean
