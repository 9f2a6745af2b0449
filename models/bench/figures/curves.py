"""Accuracy over the number of images, and over their imbalance."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from models.bench.figures.axes import (
    Box,
    Scale,
    draw_below,
    draw_frame,
    draw_shares,
    share_scale,
    shots_words,
)
from models.bench.figures.svg import FAINT, Figure, Line, Mark, Style, Text
from models.bench.results import CellResult
from models.bench.summary import Spread
from models.report.charts import spread

_COLUMNS, _WIDTH, _HEIGHT = 2, 480.0, 276.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 164.0, 38.0, 54.0
_LABEL_GAP = 14.0


@dataclass(frozen=True)
class Curve:
    """A method's means over seeds: `(x, accuracy)`, x rising."""

    method: str
    points: list[tuple[float, float]]


def over_shots(results: Sequence[CellResult], styles: Mapping[str, Style]) -> Figure | None:
    """Draw the mean accuracy of classes over shots; `None` with one number of them."""
    return _figure(
        results,
        styles,
        name="shots",
        title="Accuracy over the number of training images",
        x_name="training images of each class",
        x_of=lambda row: float(row.shots),
        panel_of=lambda row: f"{row.dataset}, tau {row.tau:g}",
    )


def over_tau(results: Sequence[CellResult], styles: Mapping[str, Style]) -> Figure | None:
    """Draw the same over tau, from equal counts to unequal ones."""
    return _figure(
        results,
        styles,
        name="tau",
        title="Accuracy over imbalance",
        x_name="tau: images of the smallest class over the largest",
        x_of=lambda row: 1 / row.tau,
        panel_of=lambda row: f"{row.dataset}, {shots_words(row.shots)}",
        tick=lambda x: f"{1 / x:g}",
    )


def _figure(
    results: Sequence[CellResult],
    styles: Mapping[str, Style],
    *,
    name: str,
    title: str,
    x_name: str,
    x_of: Callable[[CellResult], float],
    panel_of: Callable[[CellResult], str],
    tick: Callable[[float], str] = lambda x: f"{x:g}",
) -> Figure | None:
    panels: dict[str, list[CellResult]] = {}
    for row in results:
        if row.protocol == "few-shot" and row.macro is not None:
            panels.setdefault(panel_of(row), []).append(row)
    drawn = {panel: rows for panel, rows in panels.items() if len({x_of(row) for row in rows}) > 1}
    if not drawn:
        return None
    figure = Figure(name, title, f"{title}, mean of the classes, in {', '.join(drawn)}.")
    figure.width = _WIDTH * min(_COLUMNS, len(drawn))
    figure.height = _HEIGHT * -(-len(drawn) // _COLUMNS) + 8
    for index, (panel, rows) in enumerate(drawn.items()):
        box = _box(index)
        draw_frame(figure, box, panel)
        _draw_curves(figure, box, _curves(rows, x_of), styles)
        xs = sorted({x_of(row) for row in rows})
        scale = Scale(xs[0], xs[-1], box.left, box.right, log=True)
        draw_below(figure, box, [(scale(x), tick(x)) for x in xs], x_name)
    return figure


def _box(index: int) -> Box:
    row, column = divmod(index, _COLUMNS)
    left, top = column * _WIDTH, row * _HEIGHT
    return Box(left + _LEFT, top + _TOP, left + _WIDTH - _RIGHT, top + _HEIGHT - _BOTTOM)


def _curves(rows: Sequence[CellResult], x_of: Callable[[CellResult], float]) -> list[Curve]:
    values: dict[str, dict[float, list[float | None]]] = {}
    for row in rows:
        values.setdefault(row.method, {}).setdefault(x_of(row), []).append(row.macro)
    curves = []
    for method, by_x in values.items():
        means = [(x, Spread.of(found)) for x, found in sorted(by_x.items())]
        curves.append(Curve(method, [(x, mean.mean) for x, mean in means if mean is not None]))
    return curves


def _draw_curves(
    figure: Figure, box: Box, curves: Sequence[Curve], styles: Mapping[str, Style]
) -> None:
    values = [value for curve in curves for _, value in curve.points]
    xs = [x for curve in curves for x, _ in curve.points]
    x_scale = Scale(min(xs), max(xs), box.left, box.right, log=True)
    y_scale, marks = share_scale(values, box)
    draw_shares(figure, box, y_scale, marks)
    shown = [curve for curve in curves if curve.method in styles]
    for curve in curves:
        style = styles.get(curve.method)
        points = [(x_scale(x), y_scale(y)) for x, y in curve.points]
        if style is None:
            figure.lines.append(Line(points, FAINT, 1))
            continue
        figure.lines.append(Line(points, style.colour, 2, style.dash))
        figure.marks += [Mark(x, y, style.shape, style.colour) for x, y in points]
    ends = [y_scale(curve.points[-1][1]) for curve in shown]
    labels = spread(ends, _LABEL_GAP, box.top, box.bottom)
    for curve, end, y in zip(shown, ends, labels, strict=True):
        style = styles[curve.method]
        _draw_label(figure, (x_scale(curve.points[-1][0]), end), y, curve, style)
    if len(shown) < len(curves):
        text = f"grey: {len(curves) - len(shown)} more"
        figure.texts.append(Text(box.right + 16, box.bottom + 17, text, 10.5))


def _draw_label(
    figure: Figure, end: tuple[float, float], y: float, curve: Curve, style: Style
) -> None:
    """Write the name and the last value beside the end of a line, and join the two."""
    x = end[0]
    figure.lines.append(Line([(x + 5, end[1]), (x + 13, y)], style.colour, 0.75))
    name = curve.method if len(curve.method) <= 19 else curve.method[:18] + "…"
    text = f"{100 * curve.points[-1][1]:.1f}  {name}"
    figure.texts.append(Text(x + 16, y + 4, text, 11, style.colour))
