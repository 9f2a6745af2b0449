"""The bench's page: one HTML file with tables and pictures that needs nothing beside itself."""

from collections.abc import Sequence
from typing import Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from models.bench.figures.scatter import DISTANCES, panels
from models.bench.figures.svg import Figure
from models.bench.leaderboard import leaderboards
from models.bench.results import BenchResults, CellResult
from models.bench.summary import spearman
from models.report.words import NOTHING, number

# Nothing is loaded and nothing is run, whatever a class or a set is called.
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'"
)

_CAPTIONS: Final = {
    "shots": "Mean accuracy of the classes over the training images of each, mean over seeds.",
    "tau": "The same as the classes' numbers of training images move apart: the largest class keeps"
    " its number, and the smallest has tau times as many. To the right the imbalance grows.",
    "base_novel": "Each half of the classes is tested against its own names alone. H is the"
    " harmonic mean of the means over seeds.",
    "ablation": "The difference from plain cross-entropy with the same seed and the same images,"
    " its mean over seeds and its 95 % interval (Student's t). One that holds 0 shows nothing.",
    "etf_text_nc2": "Each point is a method under a seed. To the left the text features are closer"
    " to the simplex frame, in which every class stands equally far from every other.",
    "etf_text_to_image_nc3": "The same for text features against the class means of the training"
    " images: the quantity that the paper names.",
}


def render_page(content: BenchResults, figures: Sequence[Figure]) -> str:
    """Return the page."""
    results = content.results
    return _ENVIRONMENT.get_template("bench.html").render(
        policy=_CONTENT_SECURITY_POLICY,
        meta=content.meta,
        counts=_counts(results),
        boards=leaderboards(results),
        figures=[(figure, _CAPTIONS[figure.name]) for figure in figures],
        rho_columns=[
            column for name in DISTANCES.values() for column in (name, "without zero-shot")
        ],
        rhos=_rhos(results),
        notes=_notes(content),
    )


def _counts(results: Sequence[CellResult]) -> list[tuple[str, str]]:
    """Return what was compared: names and values."""
    return [
        ("Data sets", ", ".join(dict.fromkeys(row.dataset for row in results))),
        ("Protocols", ", ".join(dict.fromkeys(row.protocol for row in results))),
        ("Methods", str(len({row.method for row in results}))),
        ("Seeds", ", ".join(str(seed) for seed in sorted({row.seed for row in results}))),
        ("Results", f"{len(results):,}"),
    ]


def _rhos(results: Sequence[CellResult]) -> list[tuple[str, list[str], int]]:
    """Return a row for each panel of the scatter pictures: its title, rhos, number of points.

    For each distance two of them: of all methods, and of those that have seen an image.
    """
    found: dict[str, tuple[list[str], int]] = {}
    for place, distance in enumerate(DISTANCES):
        for panel in panels(results, distance):
            cells, _ = found.setdefault(
                panel.title, ([NOTHING] * 2 * len(DISTANCES), len(panel.points))
            )
            tuned = [point for point in panel.points if not point.method.startswith("zero-shot")]
            for offset, rho in enumerate((panel.rho.rho, spearman(tuned).rho)):
                cells[2 * place + offset] = NOTHING if rho is None else number(rho, 2)
    return [(title, cells, n) for title, (cells, n) in found.items()]


def _notes(content: BenchResults) -> list[str]:
    """Return what has to be known to read the distances."""
    notes = []
    if any(row.n_classes == 2 for row in content.results):
        notes.append(
            "Of two classes NC2 is identically 0 and NC3 one of two values, whatever the features:"
            " such sets have no place in the pictures of collapse."
        )
    most = content.meta.backbone.embed_dim + 1
    if any(row.n_classes > most for row in content.results):
        notes.append(
            f"Of more than {most} classes no simplex frame exists in this backbone's"
            f" {most - 1} dimensions: their distances from it cannot reach 0."
        )
    return notes


_ENVIRONMENT = Environment(
    loader=ChoiceLoader([PackageLoader("models.bench"), PackageLoader("models.report")]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
