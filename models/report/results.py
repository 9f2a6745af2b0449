"""How good the model is: headline, classes, confusions."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.classes import ClassSpec
from models.evaluation.proportions import proportion
from models.evaluation.results import Evaluation, Proportion
from models.language import ENGLISH, Language
from models.report.data import ReportData
from models.report.palette import share_class
from models.trust.doubts import measured, warnings

# Beyond so many classes a confusion matrix fills the page and says nothing.
MAX_MATRIX = 40
# So many of the most frequent confusions are put into words.
_WORST = 3
# A class is called thinly measured below so many images: its interval is about 20 points wide at
# an accuracy of 0.95.
_FEW_IMAGES = 20


@dataclass(frozen=True)
class Result:
    """A named accuracy, tuned, without tuning and of a probe; `total` images are behind it."""

    index: int | None
    name: str
    role: str
    tuned_on: int | None
    total: int
    tuned: Proportion
    zero_shot: Proportion | None
    linear_probe: Proportion | None


@dataclass(frozen=True)
class Outcome:
    """Something that a line pays for, counted: `count` of `total` images.

    `kind` is `miss`, an ng part let through, or `alarm`, an ok part stopped.
    """

    kind: str
    count: int
    total: int
    share: Proportion


@dataclass(frozen=True)
class MatrixCell:
    """A cell of the confusion matrix; `share` is of its row."""

    count: int
    share: float
    style: str


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another."""

    label: str
    predicted: str
    count: int
    total: int


def class_results(data: ReportData) -> list[Result]:
    """Return the results of the classes, in order."""
    zero_shot, probe = data.zero_shot, data.linear_probe
    return [
        Result(
            index=index + 1,
            name=spec.name,
            role=spec.role,
            tuned_on=data.header.n_train[index],
            total=sum(data.tuned.confusion[index]),
            tuned=data.tuned.per_class[index],
            zero_shot=zero_shot.per_class[index] if zero_shot else None,
            linear_probe=probe.per_class[index] if probe else None,
        )
        for index, spec in enumerate(data.header.classes)
    ]


def overall_results(data: ReportData, language: Language = ENGLISH) -> list[Result]:
    """Return the mean of the classes, and the share of all images."""
    tuned, zero_shot, probe = data.tuned, data.zero_shot, data.linear_probe
    trained = sum(data.header.n_train)
    return [
        Result(
            None,
            language.say("classes.mean"),
            "",
            trained,
            tuned.n_images,
            tuned.macro,
            zero_shot.macro if zero_shot else None,
            probe.macro if probe else None,
        ),
        Result(
            None,
            language.say("classes.all"),
            "",
            trained,
            tuned.n_images,
            tuned.top1,
            zero_shot.top1 if zero_shot else None,
            probe.top1 if probe else None,
        ),
    ]


def outcomes(classes: Sequence[ClassSpec], evaluation: Evaluation) -> list[Outcome]:
    """Count what the decisions cost a line, where the classes have both roles `ok` and `ng`."""
    found = []
    for kind, true, decided in (("miss", "ng", "ok"), ("alarm", "ok", "ng")):
        rows = [i for i, spec in enumerate(classes) if spec.role == true]
        columns = [i for i, spec in enumerate(classes) if spec.role == decided]
        total = sum(sum(evaluation.confusion[row]) for row in rows)
        if total and columns:
            count = sum(evaluation.confusion[row][column] for row in rows for column in columns)
            found.append(Outcome(kind, count, total, proportion(count, total)))
    return found


def weakest(results: Sequence[Result]) -> Result:
    """Return the class with the lowest accuracy, the first of several."""
    return min(results, key=lambda result: result.tuned.value)


def cautions(data: ReportData, language: Language = ENGLISH) -> list[str]:
    """Say what a reader should not conclude from the figures."""
    said = []
    tuned, zero_shot, probe = data.tuned, data.zero_shot, data.linear_probe
    if zero_shot and tuned.macro.low <= zero_shot.macro.high:
        gained = tuned.macro.value > zero_shot.macro.value
        said.append(language.say("caution.overlap" if gained else "caution.no_gain"))
    if probe and probe.macro.value > tuned.macro.value:
        shares = {"probe": probe.macro.value, "tuned": tuned.macro.value}
        written = {name: language.percent(share) for name, share in shares.items()}
        said.append(language.say("caution.probe", **written))
    few = [sum(row) for row in tuned.confusion if sum(row) < _FEW_IMAGES]
    if few:
        which = "all" if len(few) == data.n_classes else "one" if len(few) == 1 else "other"
        said.append(
            language.say(f"caution.few.{which}", n=len(few), limit=_FEW_IMAGES, least=min(few))
        )
    said += _doubts(data, language)
    if any(one.severity == "serious" for one in data.header.metrics.findings or ()):
        said.append(language.say("caution.serious"))
    return said


def _doubts(data: ReportData, language: Language) -> list[str]:
    """Say what speaks against letting the version decide, where that was measured."""
    classes, curve = data.header.classes, data.header.metrics.learning_curve
    return warnings(classes, measured(classes, data.tuned, data.trust, curve), language)


def matrix(evaluation: Evaluation) -> list[list[MatrixCell]]:
    """Return the confusion matrix with row shares, `[true][predicted]`."""
    rows = []
    for true, counts in enumerate(evaluation.confusion):
        shares = [count / sum(counts) for count in counts]
        rows.append(
            [
                MatrixCell(count, share, share_class(share, right=true == predicted))
                for predicted, (count, share) in enumerate(zip(counts, shares, strict=True))
            ]
        )
    return rows


def worst_confusions(names: Sequence[str], evaluation: Evaluation) -> list[Confusion]:
    """Return the most frequent confusions, by the share of the true class."""
    found = [
        Confusion(names[true], names[predicted], count, sum(counts))
        for true, counts in enumerate(evaluation.confusion)
        for predicted, count in enumerate(counts)
        if true != predicted and count
    ]
    return sorted(found, key=lambda c: c.count / c.total, reverse=True)[:_WORST]


def wrong(evaluation: Evaluation) -> int:
    """Return how many images were decided wrong."""
    return evaluation.n_images - sum(row[i] for i, row in enumerate(evaluation.confusion))
