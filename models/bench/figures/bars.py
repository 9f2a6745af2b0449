"""Base, novel and H of each method; and what each term of the loss brings."""

from collections.abc import Mapping, Sequence

from models.bench.ablation import BASE, LABELS, TERMS
from models.bench.figures.axes import Box, Scale, draw_below, draw_frame, shots_words, tick_text
from models.bench.figures.svg import INK, RULE, SOFT, Bar, Figure, Line, Mark, Style, Text
from models.bench.results import CellResult
from models.bench.summary import MethodSummary, Setting, Spread, summarise
from models.report.charts import ticks
from models.report.palette import SERIES
from models.report.words import points as in_points

_COLUMNS, _WIDTH, _LEFT, _RIGHT = 2, 480.0, 172.0, 64.0
_TOP, _BOTTOM, _ROW = 40.0, 50.0, 21.0

# Circle, square and diamond: base, novel, and their mean.
_BASE, _NOVEL, _MEAN = (Style.of(index, SERIES) for index in (0, 1, 3))
_GAIN, _LOSS = SERIES[0], SERIES[1]


def base_to_novel(results: Sequence[CellResult]) -> Figure | None:
    """Draw base, novel and H of each method that has them, the best first."""
    settings = {
        setting: [one for one in methods if one.h is not None]
        for setting, methods in summarise(results).items()
        if setting.protocol == "base-to-novel"
    }
    drawn = {setting: methods for setting, methods in settings.items() if methods}
    if not drawn:
        return None
    title = "Accuracy on the classes learnt (base), on new ones (novel), and H"
    figure = Figure("base_novel", title, f"{title}, by method.")
    boxes = _boxes(figure, [len(methods) for methods in drawn.values()], legend=26)
    _legend(figure)
    for box, (setting, methods) in zip(boxes, drawn.items(), strict=True):
        _draw_base_to_novel(figure, box, setting, methods)
    return figure


def ablation(results: Sequence[CellResult]) -> Figure | None:
    """Draw what each term adds to plain cross-entropy, in points, paired over seeds.

    `None` where there is no cross-entropy, or no term beside it.
    """
    drawn = {}
    for setting, rows in _by_setting(results).items():
        gains = _gains(rows)
        if gains:
            drawn[setting] = (gains, Spread.of(row.macro for row in rows if row.method == BASE))
    if not drawn:
        return None
    title = "What each term adds to cross-entropy"
    figure = Figure("ablation", title, f"{title}: points of mean class accuracy, paired by seed.")
    boxes = _boxes(figure, [len(gains) for gains, _ in drawn.values()])
    for box, (setting, (gains, plain)) in zip(boxes, drawn.items(), strict=True):
        level = "" if plain is None else f" (CE {100 * plain.mean:.1f} %)"
        draw_frame(figure, box, f"{setting.dataset}, {_words(setting)}{level}")
        _draw_gains(figure, box, gains)
    return figure


def _boxes(figure: Figure, rows: Sequence[int], legend: float = 0) -> list[Box]:
    """Lay panels of so many rows side by side, and set the figure's height."""
    boxes, top = [], legend
    for start in range(0, len(rows), _COLUMNS):
        members = rows[start : start + _COLUMNS]
        for column, count in enumerate(members):
            left = column * _WIDTH
            bottom = top + _TOP + count * _ROW
            boxes.append(Box(left + _LEFT, top + _TOP, left + _WIDTH - _RIGHT, bottom))
        top += _TOP + max(members) * _ROW + _BOTTOM
    figure.width = _WIDTH * min(_COLUMNS, len(rows))
    figure.height = top
    return boxes


def _words(setting: Setting) -> str:
    return f"{shots_words(setting.shots)}, tau {setting.tau:g}"


def _row(box: Box, index: int) -> float:
    return box.top + (index + 0.5) * _ROW


def _name(figure: Figure, box: Box, y: float, name: str) -> None:
    shown = name if len(name) <= 23 else name[:22] + "…"
    figure.texts.append(Text(box.left - 10, y + 4, shown, 11, INK, anchor="end"))


def _legend(figure: Figure) -> None:
    entries = ((_BASE, "base"), (_NOVEL, "novel"), (_MEAN, "H"))
    for index, (style, name) in enumerate(entries):
        x = _LEFT + 76 * index
        figure.marks.append(Mark(x, 15, style.shape, style.colour))
        figure.texts.append(Text(x + 9, 19, name, 11.5, style.colour))


def _draw_base_to_novel(
    figure: Figure, box: Box, setting: Setting, methods: Sequence[MethodSummary]
) -> None:
    draw_frame(figure, box, f"{setting.dataset}, {_words(setting)}")
    values = [
        spread.mean for one in methods for spread in (one.base, one.novel) if spread is not None
    ]
    marks = [mark for mark in ticks(min(values), max(values)) if -1e-9 <= mark <= 1 + 1e-9]
    scale = Scale(min([*marks, *values]), max([*marks, *values]), box.left, box.right)
    _draw_verticals(figure, box, [scale(mark) for mark in marks])
    draw_below(figure, box, [(scale(m), f"{100 * m:.0f} %") for m in marks], "top-1 accuracy")
    for index, one in enumerate(methods):
        y = _row(box, index)
        _name(figure, box, y, one.method)
        ends = [scale(spread.mean) for spread in (one.base, one.novel) if spread is not None]
        figure.lines.append(Line([(ends[0], y), (ends[1], y)], SOFT, 1))
        figure.marks.append(Mark(ends[0], y, _BASE.shape, _BASE.colour))
        figure.marks.append(Mark(ends[1], y, _NOVEL.shape, _NOVEL.colour))
        h = one.rank
        figure.marks.append(Mark(scale(h), y, _MEAN.shape, _MEAN.colour))
        label = f"{100 * h:.1f}"
        figure.texts.append(Text(box.right + 12, y + 4, label, 11, _MEAN.colour, weight=600))
    figure.texts.append(Text(box.right + 12, box.top - 2, "H, %", 10.5))


def _draw_verticals(figure: Figure, box: Box, places: Sequence[float]) -> None:
    figure.grid += [Line([(x, box.top), (x, box.bottom)], RULE) for x in places]


def _by_setting(results: Sequence[CellResult]) -> dict[Setting, list[CellResult]]:
    settings: dict[Setting, list[CellResult]] = {}
    for row in results:
        if row.protocol == "few-shot" and row.method in LABELS:
            settings.setdefault(Setting.of(row), []).append(row)
    return settings


def _gains(rows: Sequence[CellResult]) -> list[tuple[str, Spread]]:
    """Return the differences from plain cross-entropy with the same seed, term by term."""
    plain = {row.seed: row.macro for row in rows if row.method == BASE}
    gains: Mapping[str, list[float]] = {method: [] for method in LABELS if method != BASE}
    for row in rows:
        before = plain.get(row.seed)
        if row.method in gains and before is not None and row.macro is not None:
            gains[row.method].append(row.macro - before)
    spreads = [(LABELS[method], Spread.of(values)) for method, values in gains.items()]
    return [(label, spread) for label, spread in spreads if spread is not None]


def _draw_gains(figure: Figure, box: Box, gains: Sequence[tuple[str, Spread]]) -> None:
    ends = [
        100 * (spread.mean + side * (spread.margin or 0.0))
        for _, spread in gains
        for side in (-1, 1)
    ]
    marks = ticks(min(0.0, *ends), max(0.0, *ends))
    scale = Scale(marks[0], marks[-1], box.left, box.right)
    _draw_verticals(figure, box, [scale(mark) for mark in marks])
    labels = [(scale(mark), tick_text(mark, marks)) for mark in marks]
    draw_below(figure, box, labels, "points of mean class accuracy, 95 % interval over seeds")
    zero = scale(0.0)
    figure.lines.append(Line([(zero, box.top), (zero, box.bottom)], INK, 1))
    for index, (label, spread) in enumerate(gains):
        y = _row(box, index)
        _name(figure, box, y, label)
        at = scale(100 * spread.mean)
        colour = _GAIN if spread.mean >= 0 else _LOSS
        figure.bars.append(Bar(min(zero, at), y - 6, abs(at - zero), 12, colour))
        if spread.margin is not None:
            low, high = (scale(100 * (spread.mean + s * spread.margin)) for s in (-1, 1))
            _draw_whisker(figure, low, high, y)
        text = in_points(spread.mean)
        figure.texts.append(Text(box.right + 12, y + 4, text, 11, colour, weight=600))
        if (
            label in TERMS.values()
            and index + 1 < len(gains)
            and gains[index + 1][0] not in (TERMS.values())
        ):
            edge = box.top + (index + 1) * _ROW
            figure.lines.append(Line([(box.left - 150, edge), (box.right, edge)], RULE))


def _draw_whisker(figure: Figure, low: float, high: float, y: float) -> None:
    figure.lines.append(Line([(low, y), (high, y)], INK, 1.25))
    figure.lines += [Line([(x, y - 3), (x, y + 3)], INK, 1.25) for x in (low, high)]
