"""The pictures of `benchmarks.trust`: accuracy against what is left undecided, and reliability."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.bench.figures.axes import Box, Scale, draw_below, draw_frame, draw_shares, share_scale
from models.bench.figures.svg import SOFT, Figure, Line, Mark, Style, Text
from models.files import write_atomic
from models.report.palette import SERIES

_BOX = Box(70, 50, 560, 330)
_WIDTH, _HEIGHT = 740, 390


def draw_figures(summary: Mapping[str, Any], cells: Mapping[str, Any], folder: Path) -> None:
    """Write both pictures into `folder`."""
    for figure in (undecided(summary), reliability(summary, cells)):
        write_atomic(folder / f"{figure.name}.svg", figure.svg().encode())


def undecided(summary: Mapping[str, Any]) -> Figure:
    """Return the accuracy of what was decided over the share that was not."""
    figure = Figure(
        "undecided",
        "Accuracy of the decided against the share left undecided",
        "One curve for each set, by alpha from 0.5 to 0.02.",
        width=_WIDTH,
        height=_HEIGHT,
    )
    curves = {
        name: [point for point in row["curve"] if point["accuracy"] is not None]
        for name, row in summary.items()
    }
    points = [point for curve in curves.values() for point in curve]
    up, marks = share_scale([point["accuracy"] for point in points], _BOX)
    across = Scale(0, 1, _BOX.left, _BOX.right)
    draw_frame(figure, _BOX, figure.title)
    draw_shares(figure, _BOX, up, marks)
    _draw_shares_below(figure, across, "left undecided")
    for index, (name, curve) in enumerate(curves.items()):
        places = [(across(point["undecided"]), up(point["accuracy"])) for point in curve]
        _draw(figure, name, places, index)
    return figure


def reliability(summary: Mapping[str, Any], cells: Mapping[str, Any]) -> Figure:
    """Return how often the most probable class is right, over its calibrated probability."""
    figure = Figure(
        "reliability",
        "How often a calibrated probability is right",
        "One curve for each set, over ten ranges of probability; the diagonal is what was said.",
        width=_WIDTH,
        height=_HEIGHT,
    )
    across = Scale(0, 1, _BOX.left, _BOX.right)
    up = Scale(0, 1, _BOX.bottom, _BOX.top)
    draw_frame(figure, _BOX, figure.title)
    draw_shares(figure, _BOX, up, [0, 0.25, 0.5, 0.75, 1])
    _draw_shares_below(figure, across, "probability of the most probable class")
    figure.lines.append(Line([(across(0), up(0)), (across(1), up(1))], SOFT, dash="3 3"))
    for index, name in enumerate(summary):
        rows = [
            cell["calibration"]["after"]["bins"]
            for key, cell in cells.items()
            if key.startswith(f"{name}/") and "calibration" in cell
        ]
        _draw(figure, name, [(across(x), up(y)) for x, y in _joined(rows)], index)
    return figure


def _joined(splits: Sequence[Sequence[Mapping[str, float]]]) -> list[tuple[float, float]]:
    """Return mean confidence and accuracy of each range that holds one image of a hundred."""
    counts = np.array([[part["count"] for part in bins] for bins in splits])
    points = []
    for place, count in enumerate(counts.sum(axis=0)):
        if count < 0.01 * counts.sum():
            continue
        weights = counts[:, place] / count
        points.append(
            tuple(
                float(weights @ [bins[place][key] for bins in splits])
                for key in ("confidence", "accuracy")
            )
        )
    return [(x, y) for x, y in points]


def _draw_shares_below(figure: Figure, across: Scale, name: str) -> None:
    ticks = [(across(mark), f"{100 * mark:.0f} %") for mark in (0, 0.25, 0.5, 0.75, 1)]
    draw_below(figure, _BOX, ticks, name)


def _draw(figure: Figure, name: str, places: list[tuple[float, float]], index: int) -> None:
    style = Style.of(index, SERIES)
    figure.lines.append(Line(places, style.colour, 2, style.dash))
    figure.marks += [Mark(x, y, style.shape, style.colour) for x, y in places]
    y = _BOX.top + 20 * index
    figure.marks.append(Mark(_BOX.right + 25, y, style.shape, style.colour))
    figure.texts.append(Text(_BOX.right + 37, y + 4, name.replace("_", " ")))
