"""The page: sections laid out by templates, which escape every text."""

import base64
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from models.report import charts, geometry, reproduction, results, words
from models.report.data import ReportData
from models.report.palette import cosine_class, ramp_css

# Nothing is loaded and nothing is run, whatever a class is called.
_CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'"
)


def render_report(data: ReportData) -> str:
    """Return the report as one HTML page that needs nothing beside itself."""
    return (
        _environment()
        .get_template("report.html")
        .render(
            data=data,
            header=data.header,
            policy=_CONTENT_SECURITY_POLICY,
            ramps={"light": ramp_css("light"), "dark": ramp_css("dark")},
            **_results(data),
            **_geometry(data),
            phases=reproduction.phases(data),
            command=data.command or reproduction.command(data.header),
            facts=reproduction.facts(data),
            recipe=reproduction.recipe(data),
        )
    )


def _results(data: ReportData) -> dict[str, Any]:
    classes = results.class_results(data)
    return {
        "classes": classes,
        "overall": results.overall_results(data),
        "weakest": results.weakest(classes),
        "outcomes": results.outcomes(data.header.classes, data.tuned),
        "cautions": results.cautions(data),
        "max_numbered": charts.MAX_NUMBERED,
        "matrix": results.matrix(data.tuned) if data.n_classes <= results.MAX_MATRIX else None,
        "confusions": results.worst_confusions(data.names, data.tuned),
        "wrong": results.wrong(data.tuned),
        "mistakes": sorted(data.mistakes, key=lambda m: m.probability, reverse=True),
    }


def _geometry(data: ReportData) -> dict[str, Any]:
    mapped = 2 < data.n_classes <= geometry.MAX_MAPPED
    return {
        "maps": geometry.heat_maps(data) if mapped else [],
        "marks": geometry.marks(data) if data.n_classes == 2 else [],
        "pairs": geometry.closest_pairs(data) if data.n_classes > 2 else [],
        "no_ideal": geometry.no_ideal(data),
        "scale": [cosine_class(step / 20) for step in range(-20, 21)],
        "loss_chart": geometry.loss_chart(data),
        "collapse_chart": geometry.collapse_chart(data),
        "text_metrics": geometry.text_metrics(data),
        "image_metrics": geometry.image_metrics(data),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("models.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "interval": words.interval,
        "points": words.points,
        "number": words.number,
        "seconds": words.seconds,
        "counted": words.counted,
        "pieces": words.pieces,
        "base64": lambda data: base64.b64encode(data).decode(),
    }
    return environment
