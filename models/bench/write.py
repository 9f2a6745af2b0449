"""Writes the pictures and the page."""

from pathlib import Path

from models.bench.figures.all import draw
from models.bench.page import render_page
from models.bench.results import BenchResults
from models.files import write_atomic

PAGE = "bench.html"


def write_plots(content: BenchResults, folder: Path) -> list[Path]:
    """Write an SVG for each picture, and the page that holds them all; return their paths.

    Raises:
        StorageFull: no space is left.
        StorageUnusable: the folder cannot be written to.
    """
    figures = draw(content.results)
    files = {f"{figure.name}.svg": figure.svg() for figure in figures}
    files[PAGE] = render_page(content, figures)
    for name, text in files.items():
        write_atomic(folder / name, text.encode())
    return [folder / name for name in files]
