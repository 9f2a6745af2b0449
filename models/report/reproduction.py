"""What it took, and how to do it again."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.artifact import ArtifactHeader
from models.classes import default_role, normalise_name
from models.language import ENGLISH, Language
from models.recipe import Recipe
from models.report.data import ReportData

# In the order in which they happen; phases of other names follow.
_PHASES = ("start", "upload", "queue", "features", "tune", "evaluate", "predict", "zero-shot")


@dataclass(frozen=True)
class Phase:
    """A phase, its seconds, and its share of the longest in percent."""

    name: str
    seconds: float
    percent: float


def phases(data: ReportData, language: Language = ENGLISH) -> list[Phase]:
    """Return the phases of the tuning and those outside it."""
    spent: dict[str, float] = {**data.header.metrics.seconds, **data.seconds}
    order = [*(key for key in _PHASES if key in spent), *(k for k in spent if k not in _PHASES)]
    longest = max(spent.values(), default=0.0) or 1.0
    return [
        Phase(
            language.say(f"phase.{key}") if key in _PHASES else _spoken(key),
            spent[key],
            round(100 * spent[key] / longest, 1),
        )
        for key in order
    ]


def command(header: ArtifactHeader, options: Sequence[str] = ()) -> str:
    """Return a `shotline tune` with the header's seed, backbone, recipe, view and classes.

    Args:
        header: of the artifact.
        options: what it cannot know, such as how images were drawn or grouped.
    """
    parts = ["shotline", "tune", "FOLDER", "--out", "FILE", "--seed", str(header.seed), *options]
    parts += ["--backbone", header.backbone]
    for spec in header.classes:
        if spec.role == "ok" and default_role(spec.name) != "ok":
            parts += ["--ok", spec.name]
        if normalise_name(spec.prompt_name) != normalise_name(spec.name):
            parts += ["--prompt", f"{spec.name}={spec.prompt_name}"]
    if header.view.roi is not None:
        parts += ["--roi", ",".join(str(side) for side in header.view.roi)]
    if header.view.resize != "fit":
        parts += ["--resize", header.view.resize]
    default: dict[str, Any] = Recipe().model_dump()
    for name, value in header.recipe.model_dump().items():
        if value != default[name]:
            parts += ["--set", f"{name}={_setting(value)}"]
    return shlex.join(parts)


def facts(data: ReportData, language: Language = ENGLISH) -> list[tuple[str, str]]:
    """Return what identifies the model: names and values."""
    header = data.header
    view = language.say(
        "fact.view.value",
        resize=header.view.resize,
        roi=header.view.roi or language.say("fact.view.whole"),
        decoder=header.view.decoder,
    )
    values = {
        "model": data.digest,
        "backbone": header.backbone,
        "backbone_digest": header.backbone_digest,
        "snapshot": header.snapshot,
        "recipe": header.recipe.digest,
        "seed": str(header.seed),
        "view": view,
        "shotline": header.shotline,
        "made": language.time(header.created),
        "made_on": header.made_on,
    }
    return [(language.say(f"fact.{name}"), value) for name, value in values.items()]


def recipe(data: ReportData, language: Language = ENGLISH) -> list[tuple[str, str]]:
    """Return the hyperparameters."""
    none, values = language.say("again.none"), data.header.recipe.model_dump()
    return [(name, none if value is None else str(value)) for name, value in values.items()]


def _setting(value: Any) -> str:
    """Write a value as `--set` reads it: JSON, or text that is no JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _spoken(key: str) -> str:
    return key.replace("_", " ").capitalize()
