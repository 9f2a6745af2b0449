"""The page: sections laid out by templates, which escape every text."""

import base64
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from models.language import ENGLISH, LANGUAGES, Language, LanguageCode
from models.report import (
    charts,
    costs,
    evidence,
    geometry,
    images,
    reproduction,
    results,
    searched,
    trust,
    words,
)
from models.report.data import ReportData
from models.report.palette import cosine_class, ramp_css

# Nothing is loaded and nothing is run, whatever a class is called.
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'"
)


def render_report(data: ReportData, language: LanguageCode = "en") -> str:
    """Return the report as one HTML page that needs nothing beside itself."""
    spoken = LANGUAGES[language]
    return (
        _environment(language)
        .get_template("report.html")
        .render(
            data=data,
            header=data.header,
            policy=_CONTENT_SECURITY_POLICY,
            ramps={"light": ramp_css("light"), "dark": ramp_css("dark")},
            each=each(data, spoken),
            **_results(data, spoken),
            **_trust(data, spoken),
            **_images(data, spoken),
            **_geometry(data, spoken),
            phases=reproduction.phases(data, spoken),
            command=data.command or reproduction.command(data.header),
            facts=reproduction.facts(data, spoken),
            recipe=reproduction.recipe(data, spoken),
        )
    )


def each(data: ReportData, language: Language = ENGLISH) -> str:
    """Return how many images of each class the model was tuned on."""
    least, most = min(data.header.n_train), max(data.header.n_train)
    return str(least) if least == most else language.say("lead.range", least=least, most=most)


def _results(data: ReportData, language: Language) -> dict[str, Any]:
    classes, mistakes = results.class_results(data), data.wrong
    paid = costs.costs(data, language)
    return {
        "classes": classes,
        "overall": results.overall_results(data, language),
        "weakest": results.weakest(classes),
        "outcomes": results.outcomes(data.header.classes, data.tuned),
        "cautions": results.cautions(data, language),
        "costs": paid,
        "priced": any(one.each is not None for one in paid),
        "max_numbered": charts.MAX_NUMBERED,
        "matrix": results.matrix(data.tuned) if data.n_classes <= results.MAX_MATRIX else None,
        "confusions": results.worst_confusions(data.names, data.tuned),
        "wrong": results.wrong(data.tuned),
        "mistakes": mistakes,
        "pictured": any(one.thumbnail for one in mistakes),
        "check": evidence.heat_check(mistakes),
    }


def _trust(data: ReportData, language: Language) -> dict[str, Any]:
    found = data.trust
    if found is None:
        return {"trust": None}
    return {
        "trust": found,
        "reliability": trust.reliability(found, language),
        "deciding": trust.deciding(data, found, language),
        "least_in_bin": trust.LEAST_IN_BIN,
        "trust_facts": trust.facts(found, language),
        "class_coverage": trust.coverage(data, found),
        "reasons": trust.reasons(found, language),
    }


def _images(data: ReportData, language: Language) -> dict[str, Any]:
    metrics = data.header.metrics
    curve, search = metrics.learning_curve, metrics.search
    return {
        "findings": images.findings(metrics.findings or [], language),
        "curve_sentence": images.curve_sentence(curve, language) if curve else "",
        "curve_rows": images.curve_rows(curve, language) if curve else [],
        "curve_chart": images.curve_chart(curve, language) if curve else None,
        "search_sentence": searched.sentence(search, language) if search else "",
        "search_chart": searched.chart(search, language) if search else None,
        "importance": searched.importance(search, language) if search else [],
    }


def _geometry(data: ReportData, language: Language) -> dict[str, Any]:
    mapped = 2 < data.n_classes <= geometry.MAX_MAPPED
    recipe = data.header.recipe
    without = [
        name for name, weight in (("LC", recipe.lc_weight), ("MI", recipe.mi_weight)) if not weight
    ]
    return {
        "maps": geometry.heat_maps(data, language) if mapped else [],
        "marks": geometry.marks(data, language) if data.n_classes == 2 else [],
        "pairs": geometry.closest_pairs(data) if data.n_classes > 2 else [],
        "meaning": geometry.meaning(data, language),
        "no_ideal": geometry.no_ideal(data),
        "scale": [cosine_class(step / 20) for step in range(-20, 21)],
        "loss_chart": geometry.loss_chart(data, language),
        "collapse_chart": geometry.collapse_chart(data, language),
        "without": language.listed(without) if without else "",
        "text_metrics": geometry.text_metrics(data, language),
        "image_metrics": geometry.image_metrics(data, language),
    }


def _commands(text: str) -> Markup:
    """Return a text in which what stands between backticks is set as code."""
    parts = [escape(part) for part in text.split("`")]
    whole = [Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in enumerate(parts)]
    return Markup("").join(whole)


@cache
def _environment(code: LanguageCode) -> Environment:
    language = LANGUAGES[code]
    environment = Environment(
        loader=PackageLoader("models.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def text(key: str, **values: object) -> Markup:
        return Markup(escape(language.texts[key])).format(**values)  # noqa: S704 - escaped

    def listed(parts: Sequence[str]) -> Markup:
        return Markup(language.listed([str(escape(part)) for part in parts]))  # noqa: S704 - escaped

    environment.globals |= {"t": text, "language": code, "gap": language.texts["list.sentence"]}
    environment.filters |= {
        "percent": language.percent,
        "interval": language.interval,
        "thousand": language.thousand,
        "seconds": language.seconds,
        "counted": language.counted,
        "commands": _commands,
        "time": language.time,
        "listed": listed,
        "points": words.points,
        "number": words.number,
        "pieces": words.pieces,
        "base64": lambda data: base64.b64encode(data).decode(),
    }
    return environment
