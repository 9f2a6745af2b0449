"""Whether probabilities mean what they say, and how often the model says that it does not know."""

from dataclasses import dataclass
from typing import Final

from models.evaluation.results import Proportion
from models.language import ENGLISH, Language
from models.report.charts import LineChart, Series, line_chart
from models.report.data import ReportData
from models.report.words import number
from models.trust.doubts import larger_role
from models.trust.metrics import ReliabilityBin, TrustMetrics

# A bin of fewer photographs says nothing.
LEAST_IN_BIN: Final = 3


@dataclass(frozen=True)
class Fact:
    """A figure: its name, its value, and what to know of it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class ClassCoverage:
    """How often the set held the class; `None` where there was no photograph of it."""

    name: str
    share: Proportion | None


def reliability(trust: TrustMetrics, language: Language = ENGLISH) -> LineChart | None:
    """Return the accuracy over the probability, before and after calibration, and the diagonal."""
    series = [Series(language.say("trust.ideal"), "perfect", [0, 1], at=[0, 1])]
    for name, bins in (("before", trust.before.bins), ("after", trust.after.bins)):
        full = [one for one in bins if one.count >= LEAST_IN_BIN]
        series.append(_curve(language.say(f"trust.{name}"), name, full))
    return line_chart([0, 1], series, low=0, high=1, axis="trust.axis", language=language)


def _curve(name: str, style: str, bins: list[ReliabilityBin]) -> Series:
    return Series(name, style, [it.accuracy for it in bins], at=[it.confidence for it in bins])


def deciding(
    data: ReportData, trust: TrustMetrics, language: Language = ENGLISH
) -> LineChart | None:
    """Draw how much of what is decided is right, over what is left undecided, alpha at each point.

    The dashed line is what calling every image by the larger role would be. None where fewer than
    two points are to be drawn, as of versions that were tuned before it was measured.
    """
    shown = [
        (1 - one.decided.value, one.decided_accuracy.value, f"{one.alpha:g}")
        for one in trust.curve
        if one.decided_accuracy is not None
        and round(one.decided.value * one.n_images) >= LEAST_IN_BIN
    ]
    if len(shown) < 2:
        return None
    at, right, alphas = zip(*shown, strict=True)
    series = [Series(language.say("trust.curve.right"), "after", right, at=at, marks=alphas)]
    counts = [sum(row) for row in data.tuned.confusion]
    larger, base = larger_role(data.header.classes, counts)
    if base:
        name = language.say("trust.curve.always", role=language.say(f"role.{larger}"))
        share = base / sum(counts)
        series.insert(0, Series(name, "perfect", [share, share], at=[0, 1]))
    return line_chart([0, 1], series, high=1, axis="trust.curve.axis", language=language)


def facts(trust: TrustMetrics, language: Language = ENGLISH) -> list[Fact]:
    """Return the figures of calibration, prediction sets and decisions."""
    before, after = (number(100 * it.ece, 1) for it in (trust.before, trust.after))
    wanted = language.percent(1 - trust.alpha)
    note = "trust.coverage.folds" if trust.basis == "out-of-fold" else "trust.coverage.note"
    sizes = language.texts["list.between"].join(str(count) for count in trust.set_sizes)
    found = [
        Fact(
            language.say("trust.ece"),
            language.say("trust.ece.value", before=before, after=after),
        ),
        _share("trust.coverage", trust.coverage, language, language.say(note, wanted=wanted)),
        Fact(
            language.say("trust.size"),
            number(trust.mean_set_size, 2),
            language.say("trust.size.note", sizes=sizes),
        ),
        _share("trust.decided", trust.decided, language),
    ]
    if trust.decided_accuracy is not None:
        found.append(_share("trust.decided_accuracy", trust.decided_accuracy, language))
    return [*found, _share("trust.unlike", trust.unlike, language)]


def _share(key: str, share: Proportion, language: Language, note: str = "") -> Fact:
    interval = language.interval(share)
    told = f"{interval}{language.say('trust.between')}{note}" if note else interval
    return Fact(language.say(key), language.percent(share.value), told)


def coverage(data: ReportData, trust: TrustMetrics) -> list[ClassCoverage]:
    """Return how often the set held each class."""
    return [
        ClassCoverage(name, share)
        for name, share in zip(data.names, trust.per_class_coverage, strict=True)
    ]


def reasons(trust: TrustMetrics, language: Language = ENGLISH) -> list[tuple[str, int]]:
    """Return why photographs were decided or not, in words, the most frequent first."""
    return [
        (language.say(f"reason.{reason}"), count)
        for reason, count in sorted(trust.reasons.items(), key=lambda item: -item[1])
        if count
    ]
