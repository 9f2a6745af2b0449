"""All pictures that results have something for."""

from collections.abc import Sequence

from models.bench.figures.bars import ablation, base_to_novel
from models.bench.figures.curves import over_shots, over_tau
from models.bench.figures.scatter import collapse_against_accuracy
from models.bench.figures.styles import focus, of_text
from models.bench.figures.svg import Figure
from models.bench.results import CellResult


def draw(results: Sequence[CellResult]) -> list[Figure]:
    """Return the figures, in the order of the page."""
    styles = focus(results)
    figures = [
        over_shots(results, styles),
        over_tau(results, styles),
        base_to_novel(results),
        ablation(results),
        *collapse_against_accuracy(results, of_text(results, styles)),
    ]
    return [figure for figure in figures if figure is not None]
