"""The paper's central picture: distance from the frame against accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.bench.figures.axes import Box, Scale, draw_below, draw_frame, tick_text
from models.bench.figures.svg import FAINT, INK, RULE, Figure, Line, Mark, Style, Text
from models.bench.results import CellResult
from models.bench.summary import Correlation, Distance, Point, points, spearman
from models.report.charts import ticks
from models.report.words import number

_COLUMNS, _WIDTH, _HEIGHT = 3, 320.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 18.0, 52.0, 54.0
_RHO = "\N{GREEK SMALL LETTER RHO}"
# More points than these are drawn smaller.
_CROWD = 150
_LEGEND_ROW, _LEGEND_COLUMN, _LEGEND_COLUMNS = 18.0, 160.0, 6

DISTANCES: dict[Distance, str] = {
    "text_nc2": "NC2 of the text features",
    "text_to_image_nc3": "NC3, text to image",
}


@dataclass(frozen=True)
class Panel:
    """Points of a data set, or of all of them; as they are, or from the mean of their setting."""

    title: str
    points: list[Point]
    relative: bool
    rho: Correlation


def collapse_against_accuracy(
    results: Sequence[CellResult], styles: Mapping[str, Style]
) -> list[Figure]:
    """Draw a figure for each distance that some results have."""
    figures = [_figure(results, styles, distance) for distance in DISTANCES]
    return [figure for figure in figures if figure is not None]


def panels(results: Sequence[CellResult], distance: Distance) -> list[Panel]:
    """Return a panel for each set under each protocol, and one for all where there are several."""
    found = points(results, distance)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in found:
        groups.setdefault((point.setting.dataset, point.setting.protocol), []).append(point)
    several = len({protocol for _, protocol in groups}) > 1
    listed = [
        _panel(f"{dataset}, {protocol}" if several else dataset, members)
        for (dataset, protocol), members in groups.items()
    ]
    return listed + ([_panel("All together", found)] if len(listed) > 1 else [])


def _panel(title: str, members: list[Point]) -> Panel:
    relative = len({point.setting for point in members}) > 1
    shown = _from_means(members) if relative else members
    return Panel(title, shown, relative, spearman(members))


def _from_means(members: Sequence[Point]) -> list[Point]:
    """Return the points as they lie around the mean of their setting."""
    settings = {point.setting for point in members}
    means = {}
    for setting in settings:
        own = [point for point in members if point.setting == setting]
        means[setting] = (
            float(np.mean([point.distance for point in own])),
            float(np.mean([point.accuracy for point in own])),
        )
    return [
        point._replace(
            distance=point.distance - means[point.setting][0],
            accuracy=point.accuracy - means[point.setting][1],
        )
        for point in members
    ]


def _figure(
    results: Sequence[CellResult], styles: Mapping[str, Style], distance: Distance
) -> Figure | None:
    drawn = panels(results, distance)
    if not drawn:
        return None
    name = DISTANCES[distance]
    title = f"Distance from the simplex frame ({name}) against accuracy"
    rhos = "; ".join(f"{panel.title}: {_rho(panel.rho)}" for panel in drawn)
    figure = Figure(f"etf_{distance}", title, f"{title}. {rhos}.")
    methods = {point.method for panel in drawn for point in panel.points}
    known = {method: style for method, style in styles.items() if method in methods}
    top = _draw_legend(figure, known, len(methods) - len(known))
    for index, panel in enumerate(drawn):
        row, column = divmod(index, _COLUMNS)
        left, above = column * _WIDTH, top + row * _HEIGHT
        box = Box(left + _LEFT, above + _TOP, left + _WIDTH - _RIGHT, above + _HEIGHT - _BOTTOM)
        _draw_panel(figure, box, panel, styles, name)
    figure.width = _WIDTH * _COLUMNS
    figure.height = top + _HEIGHT * -(-len(drawn) // _COLUMNS)
    return figure


def _draw_legend(figure: Figure, styles: Mapping[str, Style], others: int) -> float:
    """Draw what the marks mean; return the height that it takes."""
    entries = [(style.shape, style.colour, method) for method, style in styles.items()]
    if others:
        entries.append((Style(FAINT).shape, FAINT, f"{others} more"))
    for index, (shape, colour, text) in enumerate(entries):
        row, column = divmod(index, _LEGEND_COLUMNS)
        x, y = 14 + column * _LEGEND_COLUMN, 14 + row * _LEGEND_ROW
        figure.marks.append(Mark(x, y, shape, colour))
        shown = text if len(text) <= 22 else text[:21] + "…"
        figure.texts.append(Text(x + 9, y + 4, shown, 11, INK))
    return 14 + _LEGEND_ROW * -(-len(entries) // _LEGEND_COLUMNS)


def _draw_panel(
    figure: Figure, box: Box, panel: Panel, styles: Mapping[str, Style], name: str
) -> None:
    draw_frame(figure, box, panel.title, above=30)
    figure.texts.append(Text(box.left, box.top - 13, _rho(panel.rho), 11.5, INK))
    x_marks = ticks(min(p.distance for p in panel.points), max(p.distance for p in panel.points))
    y_marks = ticks(min(p.accuracy for p in panel.points), max(p.accuracy for p in panel.points))
    x_scale = Scale(x_marks[0], x_marks[-1], box.left, box.right)
    y_scale = Scale(y_marks[0], y_marks[-1], box.bottom, box.top)
    for mark in y_marks:
        y = y_scale(mark)
        figure.grid.append(Line([(box.left, y), (box.right, y)], RULE))
        text = number(100 * mark, 0)
        figure.texts.append(Text(box.left - 7, y + 4, text, anchor="end"))
    labels = [(x_scale(mark), tick_text(mark, x_marks)) for mark in _thinned(x_marks)]
    around = ", from its setting's mean" if panel.relative else ""
    draw_below(figure, box, labels, name + around)
    unit = "accuracy, points from the mean" if panel.relative else "accuracy, %"
    middle = (box.top + box.bottom) / 2
    figure.texts.append(Text(box.left - 38, middle, unit, anchor="middle", turn=-90))
    size = 1.0 if len(panel.points) <= _CROWD else 0.65
    # What is told apart lies on top.
    for point in sorted(panel.points, key=lambda p: p.method in styles):
        style = styles.get(point.method) or Style(FAINT)
        x, y = x_scale(point.distance), y_scale(point.accuracy)
        figure.marks.append(Mark(x, y, style.shape, style.colour, 0.8, size))


def _thinned(marks: Sequence[float]) -> Sequence[float]:
    return marks if len(marks) <= 5 else marks[::2]


def _rho(correlation: Correlation) -> str:
    if correlation.rho is None:
        return f"{_RHO} not defined (n = {correlation.n})"
    return f"{_RHO} = {number(correlation.rho, 2)} (n = {correlation.n})"
