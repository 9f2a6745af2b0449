"""A panel of a figure: its frame, its scales and its ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.bench.figures.svg import INK, RULE, SOFT, Figure, Line, Text
from models.report.charts import ticks
from models.report.words import number


@dataclass(frozen=True)
class Scale:
    """Maps values to coordinates, linearly or by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate; the middle where there is one value alone."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        if low == high:
            return (self.start + self.end) / 2
        return self.start + (at - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True)
class Box:
    """The area that is drawn in."""

    left: float
    top: float
    right: float
    bottom: float


def share_scale(values: Sequence[float], box: Box) -> tuple[Scale, list[float]]:
    """Return an upright scale for shares, and its ticks: round, within 0 to 1."""
    marks = [t for t in ticks(min(values), max(values)) if -1e-9 <= t <= 1 + 1e-9]
    low, high = min([*marks, *values]), max([*marks, *values])
    return Scale(low, high, box.bottom, box.top), marks


def draw_frame(figure: Figure, box: Box, title: str, *, above: float = 14) -> None:
    """Draw a panel's ground line, and its title that far above the panel."""
    figure.texts.append(Text(box.left, box.top - above, title, 12.5, INK, weight=600))
    figure.lines.append(Line([(box.left, box.bottom), (box.right, box.bottom)], SOFT))


def draw_shares(figure: Figure, box: Box, scale: Scale, marks: Sequence[float]) -> None:
    """Draw horizontal grid lines, in percent."""
    for mark in marks:
        y = scale(mark)
        figure.grid.append(Line([(box.left, y), (box.right, y)], RULE))
        figure.texts.append(Text(box.left - 7, y + 4, f"{100 * mark:.0f} %", anchor="end"))


def draw_below(
    figure: Figure, box: Box, places: Sequence[tuple[float, str]], name: str = ""
) -> None:
    """Draw ticks below the ground line, and what they count."""
    for x, text in places:
        figure.lines.append(Line([(x, box.bottom), (x, box.bottom + 4)], SOFT))
        figure.texts.append(Text(x, box.bottom + 17, text, anchor="middle"))
    if name:
        middle = (box.left + box.right) / 2
        figure.texts.append(Text(middle, box.bottom + 33, name, anchor="middle"))


def shots_words(shots: int) -> str:
    """Return `1 shot`, `16 shots`."""
    return f"{shots} shot{'' if shots == 1 else 's'}"


def tick_text(mark: float, marks: Sequence[float]) -> str:
    """Return a tick with as many digits as its neighbours need."""
    step = marks[1] - marks[0] if len(marks) > 1 else 1.0
    return number(mark, max(0, -math.floor(math.log10(step) + 1e-9)))
