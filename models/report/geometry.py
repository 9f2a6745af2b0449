"""How collapsed the features are: cosines, curves, NC metrics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.collapse.etf import target_cosine
from models.collapse.measures import IMAGE_SIDE, TEXT_SIDE, CollapseMetrics, Measure, told
from models.report.charts import HeatMap, LineChart, Series, heat_map, line_chart
from models.report.data import ReportData
from models.report.words import NOTHING, number

# Beyond so many classes the cells of a heat map are smaller than a millimetre on paper.
MAX_MAPPED = 40
# So many pairs of classes are listed, the closest first.
_PAIRS = 20


@dataclass(frozen=True)
class Metric:
    """A measure of collapse, in the words of the page; `ideal` is its value at full collapse."""

    name: str
    meaning: str
    before: str
    after: str
    ideal: str
    verdict: str = ""


@dataclass(frozen=True)
class Pair:
    """Two classes and the raw cosines between their vectors."""

    first: str
    second: str
    before: float
    after: float
    images: float


@dataclass(frozen=True)
class Mark:
    """A cosine on the line from -1 to 1 (the picture for two classes)."""

    name: str
    style: str
    value: float

    @property
    def position(self) -> float:
        """Percent of the line's length."""
        return round((self.value + 1) * 50, 2)


def text_metrics(data: ReportData) -> list[Metric]:
    """Return the measures that tuning text can move, before and after."""
    metrics = data.header.metrics
    rows = []
    for measure in told(TEXT_SIDE, data.n_classes):
        ideal = measure.ideal(data.n_classes)
        before = _value(metrics.collapse_before, measure)
        after = _value(metrics.collapse_after, measure)
        rows.append(
            Metric(
                measure.name,
                measure.meaning,
                number(before),
                number(after),
                number(ideal),
                _verdict(before, after, ideal),
            )
        )
    return rows


def image_metrics(data: ReportData) -> list[Metric]:
    """Return the measures of the image side, which tuning text cannot move."""
    after = data.header.metrics.collapse_after
    return [
        Metric(it.name, it.meaning, NOTHING, number(_value(after, it)), number(0))
        for it in told(IMAGE_SIDE, data.n_classes)
    ]


def heat_maps(data: ReportData) -> list[HeatMap]:
    """Return the maps of raw cosines: before, after, the images' own, and the ideal."""
    k = data.n_classes
    ideal = torch.full((k, k), target_cosine(k)).fill_diagonal_(1.0)
    return [
        heat_map("Before: hand-written", _cosines(data.zero_shot_features), "Text"),
        heat_map("After: tuned", _cosines(data.text_features), "Text"),
        heat_map("Ideal: simplex ETF", ideal, "Ideal"),
        heat_map("The photographs", _cosines(data.class_means), "Class means"),
    ]


def marks(data: ReportData) -> list[Mark]:
    """Return the one cosine that two classes have, on all sides."""
    vectors = {
        "Before: hand-written": ("before", data.zero_shot_features),
        "After: tuned": ("after", data.text_features),
        "The photographs": ("images", data.class_means),
    }
    found = [Mark(n, style, float(_cosines(v)[0, 1])) for n, (style, v) in vectors.items()]
    return [*found[:2], Mark("Ideal: simplex ETF", "ideal", -1.0), found[2]]


def closest_pairs(data: ReportData) -> list[Pair]:
    """Return the pairs of classes whose tuned prompts stand closest together."""
    before, after, images = (
        _cosines(v) for v in (data.zero_shot_features, data.text_features, data.class_means)
    )
    pairs = [
        Pair(
            data.names[i],
            data.names[j],
            float(before[i, j]),
            float(after[i, j]),
            float(images[i, j]),
        )
        for i in range(data.n_classes)
        for j in range(i + 1, data.n_classes)
    ]
    return sorted(pairs, key=lambda pair: pair.after, reverse=True)[:_PAIRS]


def no_ideal(data: ReportData) -> bool:
    """Whether there are more classes than a simplex ETF can have in this many dimensions."""
    return data.n_classes > data.text_features.shape[1] + 1


def loss_chart(data: ReportData) -> LineChart | None:
    """Return the loss and its terms by epoch; LC and MI as they enter it."""
    recipe, history = data.header.recipe, data.header.metrics.history
    series = [
        Series("total", "total", _column(history, "loss")),
        Series("cross-entropy", "ce", _column(history, "ce")),
    ]
    for key, weight in (("mi", recipe.mi_weight), ("lc", recipe.lc_weight)):
        if weight:
            name = (
                key.upper() if weight == 1 else f"{weight:g} \N{MULTIPLICATION SIGN} {key.upper()}"
            )
            series.append(Series(name, key, [weight * v for v in _column(history, key)]))
    return line_chart(_column(history, "epoch"), series, low=0.0) if history else None


def collapse_chart(data: ReportData) -> LineChart | None:
    """Return NC2 and NC3 by epoch; for two classes, where those say nothing, the raw cosine."""
    history = data.header.metrics.history
    if not history:
        return None
    epochs = _column(history, "epoch")
    if data.n_classes > 2:
        nc2 = Series("NC2 text", "nc2", _column(history, "text_nc2"))
        nc3 = Series("NC3", "nc3", _column(history, "text_to_image_nc3"))
        return line_chart(epochs, [nc2, nc3], low=0.0)
    if data.header.recipe.lc_form != "gram":
        return None
    # The Gram form of LC is (cosine + 1)² for two classes.
    cosine = [math.sqrt(lc) - 1 for lc in _column(history, "lc")]
    series = Series("text cosine", "nc2", cosine)
    return line_chart(epochs, [series], low=-1.0, high=1.0, reference=(-1.0, "ideal"))


def _value(metrics: CollapseMetrics, measure: Measure) -> float:
    return float(getattr(metrics, measure.key))


def _verdict(before: float, after: float, ideal: float) -> str:
    """Say which way a measure moved, as far as three decimals show it."""
    moved = round(abs(before - ideal), 3) - round(abs(after - ideal), 3)
    if not math.isfinite(moved):
        return ""
    return "closer" if moved > 0 else "further" if moved < 0 else "unchanged"


def _cosines(vectors: Float[Tensor, "k dim"]) -> Float[Tensor, "k k"]:
    return (vectors.float() @ vectors.float().T).clamp(-1, 1)


def _column(history: Sequence[dict[str, float]], key: str) -> list[float]:
    return [record[key] for record in history]
