"""The geometry of the pictures; the templates draw them, so that every text is escaped there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from models.report.palette import cosine_class
from models.report.words import number, short

# Numbers are written into the cells of a heat map up to so many classes; beyond they are too small.
MAX_NUMBERED = 14

_WIDTH, _HEIGHT = 480, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 132, 12, 34
_LABEL_GAP = 15.0

# (epoch, value)
_Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Values by epoch, drawn in the style of a CSS class."""

    name: str
    style: str
    values: Sequence[float]


@dataclass(frozen=True)
class Line:
    """A drawn series: its points, the last of them, and where its name stands."""

    name: str
    style: str
    points: str
    end: tuple[float, float]
    label_y: float
    last: str


@dataclass(frozen=True)
class LineChart:
    """Lines over epochs; `reference` is the height of the dashed ideal and its name."""

    width: int
    height: int
    plot: tuple[float, float, float, float]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    reference: tuple[float, str] | None
    summary: str


@dataclass(frozen=True)
class Cell:
    """A square of a heat map; `text` is empty where it would be too small to read."""

    x: int
    y: int
    style: str
    text: str


@dataclass(frozen=True)
class HeatMap:
    """Raw cosines between the vectors of K classes."""

    title: str
    cell: int
    margin: int
    side: int
    cells: list[Cell]
    indices: list[tuple[float, str]]
    summary: str


def line_chart(
    epochs: Sequence[float],
    series: Sequence[Series],
    *,
    low: float | None = None,
    high: float | None = None,
    reference: tuple[float, str] | None = None,
) -> LineChart | None:
    """Lay out values over epochs; `None` where there is no finite value to draw.

    Args:
        epochs: one per value, rising.
        series: at least one; values that are not finite are left out.
        low: where the axis must begin at the latest.
        high: where it must end at the earliest.
        reference: a value to draw as a dashed line, and its name.
    """
    shown = [(s, _finite(epochs, s.values)) for s in series]
    shown = [(s, pairs) for s, pairs in shown if pairs]
    if not shown:
        return None
    bounds = [value for _, pairs in shown for _, value in pairs]
    bounds += [v for v in (low, high, reference and reference[0]) if v is not None]
    y_ticks = ticks(min(bounds), max(bounds))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    x = _Scale(epochs[0], epochs[-1], _LEFT, right)
    y = _Scale(y_ticks[0], y_ticks[-1], bottom, _TOP)
    return LineChart(
        width=_WIDTH,
        height=_HEIGHT,
        plot=(_LEFT, _TOP, right, bottom),
        x_ticks=[(x(t), f"{t:.0f}") for t in _epoch_ticks(epochs[0], epochs[-1])],
        y_ticks=[(y(t), _tick_label(t, y_ticks)) for t in y_ticks],
        lines=_lines(shown, x, y, bottom),
        reference=(y(reference[0]), reference[1]) if reference else None,
        summary=_summary(shown, epochs),
    )


def heat_map(title: str, cosines: Float[Tensor, "k k"], kind: str) -> HeatMap:
    """Lay out a matrix of raw cosines; `kind` says in words of what."""
    k, cell, margin = len(cosines), 32, 24
    rows: list[list[float]] = cosines.tolist()
    numbered = k <= MAX_NUMBERED
    cells = [
        Cell(
            margin + cell * column,
            margin + cell * row,
            cosine_class(value),
            short(value) if numbered else "",
        )
        for row, values in enumerate(rows)
        for column, value in enumerate(values)
    ]
    pairs = [rows[i][j] for i in range(k) for j in range(i)]
    mean, least, most = (number(v, 2) for v in (sum(pairs) / len(pairs), min(pairs), max(pairs)))
    return HeatMap(
        title=title,
        cell=cell,
        margin=margin,
        side=margin + cell * k,
        cells=cells,
        indices=[(margin + cell * (i + 0.5), str(i + 1)) for i in range(k)],
        summary=f"{kind}: every pair {mean}"
        if least == most
        else f"{kind}: pairs from {least} to {most}, mean {mean}",
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) that enclose `low` and `high`."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def spread(heights: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Move labels apart to at least `gap`, in the same order, and inside `top` to `bottom`."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = list(heights)
    floor = top
    for index in order:
        placed[index] = floor = max(placed[index], floor)
        floor += gap
    ceiling = bottom
    for index in reversed(order):
        placed[index] = ceiling = min(placed[index], ceiling)
        ceiling -= gap
    return placed


@dataclass(frozen=True)
class _Scale:
    """Maps values linearly to coordinates; a range of one value to the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.end) / 2
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _finite(epochs: Sequence[float], values: Sequence[float]) -> _Points:
    return [(e, v) for e, v in zip(epochs, values, strict=True) if math.isfinite(v)]


def _lines(
    shown: Sequence[tuple[Series, _Points]], x: _Scale, y: _Scale, bottom: float
) -> list[Line]:
    labels = spread([y(pairs[-1][1]) for _, pairs in shown], _LABEL_GAP, _TOP, bottom)
    return [
        Line(
            name=series.name,
            style=series.style,
            points=" ".join(f"{x(epoch)},{y(value)}" for epoch, value in pairs),
            end=(x(pairs[-1][0]), y(pairs[-1][1])),
            label_y=round(label_y, 1),
            last=number(pairs[-1][1], 2),
        )
        for (series, pairs), label_y in zip(shown, labels, strict=True)
    ]


def _epoch_ticks(first: float, last: float) -> list[float]:
    """The first epoch, and round ones after it."""
    return [first, *(t for t in ticks(first, last) if t.is_integer() and first < t <= last)]


def _tick_label(tick: float, all_ticks: Sequence[float]) -> str:
    digits = max(0, -math.floor(math.log10(all_ticks[1] - all_ticks[0]) + 1e-9))
    return number(tick, digits)


def _summary(shown: Sequence[tuple[Series, _Points]], epochs: Sequence[float]) -> str:
    moves = [
        f"{series.name} from {number(pairs[0][1], 2)} to {number(pairs[-1][1], 2)}"
        for series, pairs in shown
    ]
    return f"By epoch, {epochs[0]:.0f} to {epochs[-1]:.0f}: {'; '.join(moves)}."
