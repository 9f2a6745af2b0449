"""The geometry of the pictures; the templates draw them, so that every text is escaped there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from models.language import ENGLISH, Language
from models.report.palette import cosine_class
from models.report.words import number, short

# Numbers are written into the cells of a heat map up to so many classes; beyond they are too small.
MAX_NUMBERED = 14

_WIDTH, _HEIGHT = 480, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 132, 12, 34
_LABEL_GAP = 15.0
_MARK_GAP = 7.0

# (x, value)
_Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Values, drawn in the style of a CSS class; over `at` where they have an x of their own.

    `marks` are words at the points, one for each value, all of which are finite then.
    """

    name: str
    style: str
    values: Sequence[float]
    at: Sequence[float] | None = None
    marks: Sequence[str] = ()


@dataclass(frozen=True)
class Line:
    """A drawn series: its points, the last of them, and where its name stands, if it has one.

    `marks` are words and where they stand.
    """

    name: str
    style: str
    points: str
    end: tuple[float, float]
    label_y: float
    last: str
    marks: list[tuple[float, float, str]]


@dataclass(frozen=True)
class LineChart:
    """Lines over what `axis` names; `reference` is the height of the dashed ideal and its name."""

    width: int
    height: int
    plot: tuple[float, float, float, float]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]
    reference: tuple[float, str] | None
    summary: str
    axis: str


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
    axis: str = "chart.epoch",
    language: Language = ENGLISH,
) -> LineChart | None:
    """Lay out values over epochs, or another axis; `None` where there is no finite value to draw.

    Args:
        epochs: one per value of a series that has no `at`, rising; its ends are those of the axis.
        series: at least one; values that are not finite are left out.
        low: where the axis must begin at the latest.
        high: where it must end at the earliest.
        reference: a value to draw as a dashed line, and its name.
        axis: the key of the axis's name.
        language: of the summary.
    """
    shown = [(s, _finite(s.at if s.at is not None else epochs, s.values)) for s in series]
    shown = [(s, pairs) for s, pairs in shown if pairs]
    if not shown:
        return None
    bounds = [value for _, pairs in shown for _, value in pairs]
    bounds += [v for v in (low, high, reference and reference[0]) if v is not None]
    y_ticks = ticks(min(bounds), max(bounds))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    x = _Scale(epochs[0], epochs[-1], _LEFT, right)
    y = _Scale(y_ticks[0], y_ticks[-1], bottom, _TOP)
    named = language.say(axis)
    return LineChart(
        width=_WIDTH,
        height=_HEIGHT,
        plot=(_LEFT, _TOP, right, bottom),
        x_ticks=[(x(t), f"{t:g}") for t in _x_ticks(epochs[0], epochs[-1])],
        y_ticks=[(y(t), _tick_label(t, y_ticks)) for t in y_ticks],
        lines=_lines(shown, x, y, bottom),
        reference=(y(reference[0]), reference[1]) if reference else None,
        summary=_summary(shown, (epochs[0], epochs[-1]), named, language),
        axis=named,
    )


def heat_map(
    title: str, cosines: Float[np.ndarray, "k k"], kind: str, language: Language = ENGLISH
) -> HeatMap:
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
        summary=language.say("geometry.every", kind=kind, value=mean)
        if least == most
        else language.say("geometry.pairs", kind=kind, least=least, most=most, mean=mean),
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
    ends = [(place, y(pairs[-1][1])) for place, (one, pairs) in enumerate(shown) if one.name]
    heights = spread([height for _, height in ends], _LABEL_GAP, _TOP, bottom)
    labels = {place: height for (place, _), height in zip(ends, heights, strict=True)}
    return [
        Line(
            name=series.name,
            style=series.style,
            points=" ".join(f"{x(epoch)},{y(value)}" for epoch, value in pairs),
            end=(x(pairs[-1][0]), y(pairs[-1][1])),
            label_y=round(labels.get(place, 0.0), 1),
            last=number(pairs[-1][1], 2),
            marks=[
                (x(at), _beside(y(value)), mark)
                for (at, value), mark in zip(pairs, series.marks, strict=False)
            ],
        )
        for place, (series, pairs) in enumerate(shown)
    ]


def _beside(height: float) -> float:
    """Return where a mark stands: above its point, and below where the chart ends there."""
    return height - _MARK_GAP if height > _TOP + _MARK_GAP else height + 2 * _MARK_GAP + 1


def _x_ticks(first: float, last: float) -> list[float]:
    """The first one, and round ones after it: whole ones where the axis is longer than 1."""
    rounds = ticks(first, last)
    if last - first > 1:
        rounds = [tick for tick in rounds if tick.is_integer()]
    return [first, *(tick for tick in rounds if first < tick <= last)]


def _tick_label(tick: float, all_ticks: Sequence[float]) -> str:
    digits = max(0, -math.floor(math.log10(all_ticks[1] - all_ticks[0]) + 1e-9))
    return number(tick, digits)


def _summary(
    shown: Sequence[tuple[Series, _Points]],
    ends: tuple[float, float],
    axis: str,
    language: Language,
) -> str:
    moves = [
        language.say(
            "chart.move",
            name=series.name,
            first=number(pairs[0][1], 2),
            last=number(pairs[-1][1], 2),
        )
        for series, pairs in shown
        if series.name
    ]
    return language.say(
        "chart.moves",
        axis=axis,
        start=f"{ends[0]:g}",
        end=f"{ends[1]:g}",
        moves=language.texts["chart.separator"].join(moves),
    )
