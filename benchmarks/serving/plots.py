"""Pictures: shares up to a value, bars with a target, and what happens over time."""

import math
from collections.abc import Mapping, Sequence

from models.bench.figures.axes import Box, Scale, draw_below, draw_frame, tick_text
from models.bench.figures.svg import INK, RULE, SOFT, Bar, Figure, Line, Style, Text
from models.report.charts import ticks
from models.report.palette import SERIES
from models.report.words import number

_WIDTH, _LEFT, _RIGHT, _TOP, _HEIGHT, _BELOW = 640.0, 64.0, 150.0, 40.0, 240.0, 50.0
# Names of rows have at least so much room, and with the text's 11 pixels so much a character.
_ROW, _NAMES, _CHARACTER = 24.0, 220.0, 6.3

Points = Sequence[tuple[float, float]]


def cumulative(name: str, title: str, series: Mapping[str, Sequence[float]]) -> Figure:
    """Draw, for each series of milliseconds, the share of requests that took at most so long."""
    curves = {label: _steps(values) for label, values in series.items() if values}
    lowest = min(points[0][0] for points in curves.values())
    highest = max(points[-1][0] for points in curves.values())
    marks = _decades(lowest, highest)
    figure, box = _panel(name, title)
    across = Scale(marks[0], marks[-1], box.left, box.right, log=True)
    _draw_shares(figure, box)
    draw_below(figure, box, [(across(mark), f"{mark:g}") for mark in marks], "milliseconds")
    up = Scale(0, 1, box.bottom, box.top)
    _draw_series(figure, box, {k: [(across(x), up(y)) for x, y in v] for k, v in curves.items()})
    return figure


def over_time(name: str, title: str, unit: str, series: Mapping[str, Points]) -> Figure:
    """Draw values over seconds."""
    points = [point for curve in series.values() for point in curve]
    marks = ticks(0.0, max(y for _, y in points))
    times = ticks(0.0, max(x for x, _ in points))
    figure, box = _panel(name, title)
    across = Scale(times[0], times[-1], box.left, box.right)
    up = Scale(marks[0], marks[-1], box.bottom, box.top)
    for mark in marks:
        y = up(mark)
        figure.grid.append(Line([(box.left, y), (box.right, y)], RULE))
        figure.texts.append(Text(box.left - 7, y + 4, tick_text(mark, marks), anchor="end"))
    middle = (box.top + box.bottom) / 2
    figure.texts.append(Text(box.left - 46, middle, unit, anchor="middle", turn=-90))
    draw_below(figure, box, [(across(t), tick_text(t, times)) for t in times], "seconds")
    _draw_series(figure, box, {k: [(across(x), up(y)) for x, y in v] for k, v in series.items()})
    return figure


def bars(
    name: str, title: str, unit: str, rows: Mapping[str, float], target: float | None = None
) -> Figure:
    """Draw a bar for each row, and a line at the target."""
    figure = Figure(name, title, f"{title}, in {unit}.")
    names = max(_NAMES, 20 + _CHARACTER * max(map(len, rows)))
    figure.width, figure.height = _WIDTH - _NAMES + names, _TOP + _ROW * len(rows) + _BELOW
    box = Box(names, _TOP, figure.width - 70, _TOP + _ROW * len(rows))
    marks = ticks(0.0, max([*rows.values(), target or 0.0]))
    across = Scale(0.0, marks[-1], box.left, box.right)
    figure.texts.append(Text(14, box.top - 14, title, 12.5, INK, weight=600))
    figure.lines.append(Line([(box.left, box.bottom), (box.right, box.bottom)], SOFT))
    figure.grid += [Line([(across(m), box.top), (across(m), box.bottom)], RULE) for m in marks]
    draw_below(figure, box, [(across(m), tick_text(m, marks)) for m in marks], unit)
    for place, (label, value) in enumerate(rows.items()):
        y = box.top + (place + 0.5) * _ROW
        figure.texts.append(Text(box.left - 10, y + 4, label, 11, INK, anchor="end"))
        figure.bars.append(Bar(box.left, y - 7, across(value) - box.left, 14, SERIES[0]))
        figure.texts.append(Text(box.right + 10, y + 4, _short(value), 11, INK))
    if target is not None:
        x = across(target)
        figure.lines.append(Line([(x, box.top), (x, box.bottom)], SERIES[1], 1.5, "5 3"))
        figure.texts.append(Text(x, box.top - 3, "target", 10.5, SERIES[1], anchor="middle"))
    return figure


def _panel(name: str, title: str) -> tuple[Figure, Box]:
    figure = Figure(name, title, f"{title}.")
    figure.width, figure.height = _WIDTH, _TOP + _HEIGHT + _BELOW
    box = Box(_LEFT, _TOP, _WIDTH - _RIGHT, _TOP + _HEIGHT)
    draw_frame(figure, box, title)
    return figure, box


def _draw_shares(figure: Figure, box: Box) -> None:
    up = Scale(0, 1, box.bottom, box.top)
    for mark in (0.0, 0.25, 0.5, 0.75, 0.9, 0.99):
        y = up(mark)
        figure.grid.append(Line([(box.left, y), (box.right, y)], RULE))
        if mark < 0.99:  # its text would lie on that of 90 %
            figure.texts.append(Text(box.left - 7, y + 4, f"{100 * mark:.0f} %", anchor="end"))
    figure.texts.append(Text(box.right + 6, up(0.99) + 4, "99 %", 9, SOFT))


def _draw_series(figure: Figure, box: Box, curves: Mapping[str, Points]) -> None:
    for place, (label, points) in enumerate(curves.items()):
        style = Style.of(place, SERIES)
        figure.lines.append(Line(points, style.colour, 1.75, style.dash))
        y = box.top + 26 + 18 * place
        start = box.right + 14
        figure.lines.append(Line([(start, y), (start + 18, y)], style.colour, 1.75, style.dash))
        figure.texts.append(Text(start + 24, y + 4, label, 11, style.colour))


def _steps(values: Sequence[float], points: int = 200) -> list[tuple[float, float]]:
    """Return the sorted values and the share up to each, thinned."""
    ordered = sorted(max(value, 1e-3) for value in values)
    count = len(ordered)
    places = sorted({round(i * (count - 1) / points) for i in range(points + 1)})
    return [(ordered[place], (place + 1) / count) for place in places]


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2 or 5 times powers of ten that enclose both."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
    inside = [mark for mark in marks if low < mark < high]
    below = max((mark for mark in marks if mark <= low), default=marks[0])
    above = min((mark for mark in marks if mark >= high), default=marks[-1])
    return sorted({below, *inside, above})


def _short(value: float) -> str:
    return number(value, 0 if value >= 100 else 1 if value >= 10 else 2)
