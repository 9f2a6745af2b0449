"""What the photographs are worth: what the doctor found, and whether there are enough."""

from dataclasses import dataclass

from models.findings.finding import FindingSummary
from models.language import ENGLISH, Language
from models.learning_curve import ClassCurve, Estimate, LearningCurve
from models.report.charts import LineChart, Series, line_chart
from models.report.palette import SERIES
from models.report.words import number, points


@dataclass(frozen=True)
class FindingRow:
    """What was found of one kind."""

    kind: str
    severity: str
    name: str
    count: int
    sentence: str
    examples: list[str]


@dataclass(frozen=True)
class Told:
    """An estimate in words, and its interval; empty where there are too few images to tell."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class CurveRow:
    """What more photographs of a class would bring."""

    name: str
    images: int
    now: Told
    then: Told
    gain: Told


def findings(found: list[FindingSummary], language: Language = ENGLISH) -> list[FindingRow]:
    """Return what was found, the serious first."""
    return [
        FindingRow(
            kind=one.kind,
            severity=one.severity,
            name=language.say(f"finding.{one.kind}"),
            count=one.count,
            sentence=_sentence(one, language),
            examples=list(dict.fromkeys(it.name for images in one.examples for it in images)),
        )
        for one in found
    ]


def _sentence(one: FindingSummary, language: Language) -> str:
    """Word the worst finding; of what was kept in English alone, other languages give advice."""
    if one.said:
        return language.worded(one.said)
    return one.sentence if language is ENGLISH else language.say(f"advice.{one.kind}")


def curve_rows(curve: LearningCurve, language: Language = ENGLISH) -> list[CurveRow]:
    """Return what more photographs of each class would bring."""
    return [
        CurveRow(
            one.name,
            one.images,
            _percents(one.accuracy_now, language),
            _percents(one.accuracy_then, language),
            _points(one.gain, language),
        )
        for one in curve.classes
    ]


def curve_sentence(curve: LearningCurve, language: Language = ENGLISH) -> str:
    """Say which class to photograph next, or that more photographs would hardly help."""
    best = curve.classes[curve.next_class]
    gain = best.macro_gain
    if gain is None or round(gain.value, 3) <= 0:
        return language.say("curve.enough", more=curve.more)
    return language.say(
        "curve.next",
        name=best.name,
        more=curve.more,
        gain=number(100 * gain.value, 1),
        low=number(100 * gain.low, 1),
        high=number(100 * gain.high, 1),
    )


def curve_chart(curve: LearningCurve, language: Language = ENGLISH) -> LineChart | None:
    """Draw the classes that are told worst, as measured and as extrapolated."""
    fitted = [it for it in enumerate(curve.classes, 1) if it[1].fit is not None and it[1].points]
    worst = sorted(fitted, key=lambda it: it[1].points[-1].error, reverse=True)[: len(SERIES)]
    if not worst:
        return None
    first = min(one.points[0].images for _, one in worst)
    last = max(one.images + curve.more for _, one in worst)
    series = []
    for place, (index, one) in enumerate(worst, start=1):
        measured = [1 - point.error for point in one.points]
        at = [point.images for point in one.points]
        series.append(Series("", f"k{place}", measured, at=at))
        series.append(_extrapolated(one, str(index), place, curve.more))
    return line_chart([first, last], series, high=1.0, axis="curve.axis", language=language)


def _extrapolated(one: ClassCurve, name: str, place: int, more: int) -> Series:
    start, fit = one.points[-1].images, one.fit
    at = [start + (one.images + more - start) * step / 8 for step in range(9)]
    values = [
        1 - min(1.0, fit.floor + fit.scale * images**-fit.exponent) if fit else 0.0 for images in at
    ]
    return Series(name, f"k{place} thought", values, at=at)


def _percents(value: Estimate | None, language: Language) -> Told:
    if value is None:
        return Told(language.say("curve.unknown"))
    low, high = (number(100 * it, 1) for it in (value.low, value.high))
    return Told(number(100 * value.value, 1), language.say("curve.range", low=low, high=high))


def _points(value: Estimate | None, language: Language) -> Told:
    if value is None:
        return Told(language.say("curve.unknown"))
    low, high = (points(it) for it in (value.low, value.high))
    return Told(points(value.value), language.say("curve.range", low=low, high=high))
