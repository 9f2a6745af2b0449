"""The report as JSON: all that the page says, pictures by reference."""

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.evaluation.results import Evaluation, Proportion
from models.findings.finding import FindingSummary
from models.language import LANGUAGES, Language, LanguageCode
from models.learning_curve import LearningCurve
from models.report import costs, evidence, geometry, images, reproduction, results, searched, trust
from models.report.data import Mistake, ReportData
from models.report.page import each
from models.search.result import SearchResult
from models.trust.metrics import TrustMetrics


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ClassRow(_Part):
    """A class: what it was tuned on, and how often it is decided right; shares with intervals."""

    name: str
    role: str
    tuned_on: int
    measured_on: int
    tuned: Proportion
    zero_shot: Proportion | None
    linear_probe: Proportion | None


class CostRow(_Part):
    """What happens in 1,000 parts of a kind; `cost` where a policy says what one costs."""

    kind: str = Field(description="`miss`, `alarm` or `undecided`.")
    of: str
    count: int
    total: int
    share: Proportion
    each: float | None
    cost: Proportion | None


class ConfusionRow(_Part):
    """So many of the `total` images of a class were taken for another."""

    label: str
    predicted: str
    count: int
    total: int


class MistakeRow(_Part):
    """A mistake: the image by the sha256 of its bytes, and how its heat map fared."""

    sha256: str | None
    name: str
    label: str
    predicted: str
    probability: float
    way: str | None = None
    deletion: float | None = None
    deletion_random: float | None = None


class HeatRow(_Part):
    """The check of all heat maps together."""

    way: str
    deletion: float
    deletion_random: float
    better: int
    total: int
    sentence: str


class MeasureRow(_Part):
    """A measure of neural collapse; `before` is not known of the image side."""

    key: str
    name: str
    meaning: str
    before: float | None
    after: float | None
    ideal: float


class PairRow(_Part):
    """Raw cosines between two classes: of the texts before and after, and of their images."""

    first: str
    second: str
    before: float | None
    after: float | None
    images: float | None


class Geometry(_Part):
    """How far apart the classes stand, and what it means."""

    sentences: list[str]
    measures: list[MeasureRow]
    closest_pairs: list[PairRow]
    history: list[dict[str, float | None]]


class Reproduction(_Part):
    """What it took, and how to do it again."""

    command: str
    same_digest: bool
    facts: dict[str, str]
    recipe: dict[str, Any]
    seconds: dict[str, float]


class ReportDocument(_Part):
    """All that the page says, in figures and in sentences of one language."""

    language: LanguageCode
    title: str | None
    summary: list[str]
    cautions: list[str]
    tuned: Evaluation
    zero_shot: Evaluation | None
    linear_probe: Evaluation | None
    classes: list[ClassRow]
    costs: list[CostRow]
    trust: TrustMetrics | None
    trust_reasons: dict[str, int]
    confusions: list[ConfusionRow]
    mistakes: list[MistakeRow]
    heat: HeatRow | None
    findings: list[FindingSummary] | None
    findings_advice: list[str]
    learning_curve: LearningCurve | None
    learning_curve_sentence: str
    search: SearchResult | None
    search_sentence: str
    geometry: Geometry
    reproduction: Reproduction


def report_document(data: ReportData, language: LanguageCode = "en") -> ReportDocument:
    """Return the report with its sentences in a language."""
    spoken, metrics = LANGUAGES[language], data.header.metrics
    curve, search = metrics.learning_curve, metrics.search
    found = images.findings(metrics.findings or [], spoken)
    return ReportDocument(
        language=language,
        title=data.title,
        summary=_summary(data, spoken),
        cautions=results.cautions(data, spoken),
        tuned=data.tuned,
        zero_shot=data.zero_shot,
        linear_probe=data.linear_probe,
        classes=_classes(data),
        costs=[
            CostRow(**asdict(row) | {"share": row.share}, cost=row.per_thousand)
            for row in costs.costs(data, spoken)
        ],
        trust=data.trust,
        trust_reasons=dict(trust.reasons(data.trust, spoken)) if data.trust else {},
        confusions=[
            ConfusionRow(**asdict(one)) for one in results.worst_confusions(data.names, data.tuned)
        ],
        mistakes=[_mistake(one) for one in data.wrong],
        heat=_heat(data, spoken),
        findings=metrics.findings
        and [
            one.model_copy(update={"sentence": row.sentence})
            for one, row in zip(metrics.findings, found, strict=True)
        ],
        findings_advice=[f"{row.name}: {row.sentence}" for row in found],
        learning_curve=curve,
        learning_curve_sentence=images.curve_sentence(curve, spoken) if curve else "",
        search=search,
        search_sentence=searched.sentence(search, spoken) if search else "",
        geometry=_geometry(data, spoken),
        reproduction=_reproduction(data, spoken),
    )


def _summary(data: ReportData, language: Language) -> list[str]:
    """Say what was tuned on what, what it was measured on, and what came of it."""
    header, tuned = data.header, data.tuned
    basis = "test" if data.test else "holdout" if tuned.basis == "holdout" else "folds"
    said = [
        language.say(
            "lead",
            classes=language.counted(data.n_classes, "class"),
            photographs=language.counted(sum(header.n_train), "photograph"),
            each=each(data, language),
            backbone=header.backbone,
        ),
        language.say(f"basis.{basis}", photographs=language.counted(tuned.n_images, "photograph")),
    ]
    for name, evaluation in (
        ("tuned", tuned),
        ("linear_probe", data.linear_probe),
        ("zero_shot", data.zero_shot),
    ):
        if evaluation is not None:
            macro = evaluation.macro
            shares = {
                "value": language.percent(macro.value),
                "interval": language.interval(macro),
            }
            said.append(language.say("headline.track", name=language.say(name), **shares))
    return said


def _classes(data: ReportData) -> list[ClassRow]:
    return [
        ClassRow(
            name=row.name,
            role=row.role,
            tuned_on=row.tuned_on or 0,
            measured_on=row.total,
            tuned=row.tuned,
            zero_shot=row.zero_shot,
            linear_probe=row.linear_probe,
        )
        for row in results.class_results(data)
    ]


def _mistake(one: Mistake) -> MistakeRow:
    row = MistakeRow(**one.model_dump(exclude={"thumbnail", "heat"}))
    if one.heat is None:
        return row
    checked = {
        "way": one.heat.way,
        "deletion": one.heat.hottest_first,
        "deletion_random": one.heat.chance,
    }
    return row.model_copy(update=checked)


def _heat(data: ReportData, language: Language) -> HeatRow | None:
    check = evidence.heat_check(data.wrong)
    if check is None:
        return None
    return HeatRow(
        way=check.way,
        deletion=check.hottest_first,
        deletion_random=check.random,
        better=check.better,
        total=check.total,
        sentence=language.say(f"mistakes.check.{check.verdict}"),
    )


def _geometry(data: ReportData, language: Language) -> Geometry:
    metrics = data.header.metrics
    return Geometry(
        sentences=geometry.meaning(data, language),
        measures=[
            MeasureRow(
                key=row.key,
                name=row.name,
                meaning=row.meaning,
                before=None
                if side == "image"
                else geometry.finite(getattr(metrics.collapse_before, row.key)),
                after=geometry.finite(getattr(metrics.collapse_after, row.key)),
                ideal=geometry.ideal(row.key, data.n_classes),
            )
            for side, rows in (
                ("text", geometry.text_metrics(data, language)),
                ("image", geometry.image_metrics(data, language)),
            )
            for row in rows
        ],
        closest_pairs=[
            PairRow(
                first=pair.first,
                second=pair.second,
                before=geometry.finite(pair.before),
                after=geometry.finite(pair.after),
                images=geometry.finite(pair.images),
            )
            for pair in geometry.closest_pairs(data)
        ],
        history=[
            {name: geometry.finite(value) for name, value in record.items()}
            for record in metrics.history
        ],
    )


def _reproduction(data: ReportData, language: Language) -> Reproduction:
    return Reproduction(
        command=data.command or reproduction.command(data.header),
        same_digest=data.command is not None,
        facts=dict(reproduction.facts(data, language)),
        recipe=data.header.recipe.model_dump(mode="json"),
        seconds={**data.header.metrics.seconds, **data.seconds},
    )
