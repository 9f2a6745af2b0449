"""How collapsed the features are: cosines, curves, NC metrics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from models.collapse.measures import IMAGE_SIDE, TEXT_SIDE, CollapseMetrics, Measure, told
from models.language import ENGLISH, Language
from models.report.charts import HeatMap, LineChart, Series, heat_map, line_chart
from models.report.data import ReportData
from models.report.words import NOTHING, number, points

# Beyond so many classes the cells of a heat map are smaller than a millimetre on paper.
MAX_MAPPED = 40
# So many pairs of classes are listed, the closest first.
_PAIRS = 20
# The measures that are put into sentences.
_SENTENCES = {
    "text_nc2": "geometry.even",
    "text_to_image_nc3": "geometry.aligned",
    "mi": "geometry.mi",
}


@dataclass(frozen=True)
class Metric:
    """A measure of collapse, in the words of the page; `ideal` is its value at full collapse."""

    key: str
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


def text_metrics(data: ReportData, language: Language = ENGLISH) -> list[Metric]:
    """Return the measures that tuning text can move, before and after."""
    metrics = data.header.metrics
    rows = []
    for measure in told(TEXT_SIDE, data.n_classes):
        ideal = measure.ideal(data.n_classes)
        before = _value(metrics.collapse_before, measure)
        after = _value(metrics.collapse_after, measure)
        rows.append(
            Metric(
                measure.key,
                language.say(f"measure.{measure.key}.name"),
                language.say(f"measure.{measure.key}.meaning"),
                number(before),
                number(after),
                number(ideal),
                _verdict(before, after, ideal),
            )
        )
    return rows


def image_metrics(data: ReportData, language: Language = ENGLISH) -> list[Metric]:
    """Return the measures of the image side, which tuning text cannot move."""
    after = data.header.metrics.collapse_after
    return [
        Metric(
            it.key,
            language.say(f"measure.{it.key}.name"),
            language.say(f"measure.{it.key}.meaning"),
            NOTHING,
            number(_value(after, it)),
            number(0),
        )
        for it in told(IMAGE_SIDE, data.n_classes)
    ]


def meaning(data: ReportData, language: Language = ENGLISH) -> list[str]:
    """Return what tuning did to the geometry in sentences, and whether accuracy went with it."""
    found = {row.key: row for row in text_metrics(data, language)}
    said = [_moved(data, language)]
    for key, sentence in _SENTENCES.items():
        row = found.get(key)
        if row is not None and row.verdict:
            text = language.say(f"{sentence}.{row.verdict}", before=row.before, after=row.after)
            said.append(text)
    key = "text_nc2" if data.n_classes > 2 else "text_cosine"
    if data.zero_shot is not None and found[key].verdict:
        gain = data.tuned.macro.value - data.zero_shot.macro.value
        closer, better = found[key].verdict == "closer", round(gain, 3) > 0
        how = {(True, True): "holds", (True, False): "no_gain", (False, True): "without"}
        claim = how.get((closer, better), "neither")
        said.append(language.say(f"geometry.claim.{claim}", points=points(gain)))
    return [text for text in said if text]


def _moved(data: ReportData, language: Language) -> str:
    """Say whether the prompts of different classes moved apart, as far as two decimals show it."""
    metrics = data.header.metrics
    before, after = metrics.collapse_before.text_cosine, metrics.collapse_after.text_cosine
    if not math.isfinite(after - before):
        return ""
    way = round(after, 2) - round(before, 2)
    key = "unmoved" if way == 0 else "apart" if way < 0 else "together"
    return language.say(
        f"geometry.{key}",
        before=number(before, 2),
        after=number(after, 2),
        ideal=number(_target(data.n_classes), 2),
    )


def heat_maps(data: ReportData, language: Language = ENGLISH) -> list[HeatMap]:
    """Return the maps of raw cosines: before, after, the images' own, and the ideal."""
    k = data.n_classes
    ideal = np.full((k, k), _target(k))
    np.fill_diagonal(ideal, 1.0)
    maps = (
        ("before", _cosines(data.zero_shot_features), "text"),
        ("after", _cosines(data.text_features), "text"),
        ("ideal", ideal, "ideal"),
        ("photographs", _cosines(data.class_means), "images"),
    )
    return [
        heat_map(
            language.say(f"geometry.{title}"),
            cosines,
            language.say(f"geometry.kind.{kind}"),
            language,
        )
        for title, cosines, kind in maps
    ]


def marks(data: ReportData, language: Language = ENGLISH) -> list[Mark]:
    """Return the one cosine that two classes have, on all sides."""
    values = {
        "before": float(_cosines(data.zero_shot_features)[0, 1]),
        "after": float(_cosines(data.text_features)[0, 1]),
        "ideal": -1.0,
        "photographs": float(_cosines(data.class_means)[0, 1]),
    }
    styles = {"photographs": "images"}
    return [
        Mark(language.say(f"geometry.{name}"), styles.get(name, name), value)
        for name, value in values.items()
    ]


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


def loss_chart(data: ReportData, language: Language = ENGLISH) -> LineChart | None:
    """Return the loss and its terms by epoch; LC and MI as they enter it."""
    recipe, history = data.header.recipe, data.header.metrics.history
    series = [
        Series(language.say("chart.total"), "total", _column(history, "loss")),
        Series(language.say("chart.ce"), "ce", _column(history, "ce")),
    ]
    for key, weight in (("mi", recipe.mi_weight), ("lc", recipe.lc_weight)):
        if weight:
            name = (
                key.upper() if weight == 1 else f"{weight:g} \N{MULTIPLICATION SIGN} {key.upper()}"
            )
            series.append(Series(name, key, [weight * v for v in _column(history, key)]))
    if not history:
        return None
    return line_chart(_column(history, "epoch"), series, low=0.0, language=language)


def collapse_chart(data: ReportData, language: Language = ENGLISH) -> LineChart | None:
    """Return NC2 and NC3 by epoch; for two classes, where those say nothing, the raw cosine."""
    history = data.header.metrics.history
    if not history:
        return None
    epochs = _column(history, "epoch")
    if data.n_classes > 2:
        nc2 = Series(language.say("chart.nc2"), "nc2", _column(history, "text_nc2"))
        nc3 = Series(language.say("chart.nc3"), "nc3", _column(history, "text_to_image_nc3"))
        return line_chart(epochs, [nc2, nc3], low=0.0, language=language)
    if data.header.recipe.lc_form != "gram":
        return None
    # The Gram form of LC is (cosine + 1)² for two classes.
    cosine = [math.sqrt(lc) - 1 for lc in _column(history, "lc")]
    series = Series(language.say("chart.cosine"), "nc2", cosine)
    ideal = (-1.0, language.say("chart.ideal"))
    return line_chart(epochs, [series], low=-1.0, high=1.0, reference=ideal, language=language)


def finite(value: float) -> float | None:
    """Return the value, or `None` where it is no number that JSON can hold."""
    return value if math.isfinite(value) else None


def ideal(key: str, n_classes: int) -> float:
    """Return the value of a measure at full collapse."""
    return next(it.ideal(n_classes) for it in (*TEXT_SIDE, *IMAGE_SIDE) if it.key == key)


def _value(metrics: CollapseMetrics, measure: Measure) -> float:
    return float(getattr(metrics, measure.key))


def _verdict(before: float, after: float, ideal: float) -> str:
    """Say which way a measure moved, as far as three decimals show it."""
    moved = round(abs(before - ideal), 3) - round(abs(after - ideal), 3)
    if not math.isfinite(moved):
        return ""
    return "closer" if moved > 0 else "further" if moved < 0 else "unchanged"


def _target(n_classes: int) -> float:
    """The cosine between any two vectors of a simplex ETF."""
    return -1.0 / (n_classes - 1)


def _cosines(vectors: Float[np.ndarray, "k dim"]) -> Float[np.ndarray, "k k"]:
    return np.clip(vectors @ vectors.T, -1, 1)


def _column(history: Sequence[dict[str, float]], key: str) -> list[float]:
    return [record[key] for record in history]
