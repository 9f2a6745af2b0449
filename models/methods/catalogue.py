"""All methods by name, and with what goes on top: `coop`, `kgcoop+lc+mi=5`, `coop+la+alpha=0.5`."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from models.baselines.clap import CLAP
from models.baselines.linear_probe import LinearProbe
from models.baselines.lp_plus_plus import LPPlusPlus
from models.baselines.nearest_class_mean import NearestClassMean
from models.baselines.tip_adapter import TipAdapter
from models.baselines.tip_adapter_f import TipAdapterF
from models.baselines.zero_shot import IMAGENET_TEMPLATES, ZeroShot
from models.errors import BadRecipe
from models.methods.cocoop import CoCoOp, CoCoOpRecipe
from models.methods.ivlp import IVLP, IVLPRecipe
from models.methods.maple import MaPLe, MaPLeRecipe
from models.methods.method import Method
from models.methods.promptsrc import PromptSRC, PromptSRCRecipe
from models.methods.tuned import PUBLISHED, Schedule, Tuned
from models.recipe import Recipe

AUTO = "auto"

BASELINES: Mapping[str, Method] = {
    "zero-shot": ZeroShot(),
    "zero-shot-80": ZeroShot(IMAGENET_TEMPLATES),
    "nearest-class-mean": NearestClassMean(),
    "linear-probe": LinearProbe(),
    "linear-probe-balanced": LinearProbe(class_weight="balanced"),
    "tip-adapter": TipAdapter(),
    "tip-adapter-f": TipAdapterF(),
    "lp++": LPPlusPlus(),
    "clap": CLAP(),
}
# Tuners that cannot be served from fixed class embeddings.
OTHERS: Mapping[str, Callable[[Mapping[str, Any]], Method]] = {
    "cocoop": lambda settings: CoCoOp(CoCoOpRecipe(**settings)),
    "ivlp": lambda settings: IVLP(IVLPRecipe(**settings)),
    "maple": lambda settings: MaPLe(MaPLeRecipe(**settings)),
    "promptsrc": lambda settings: PromptSRC(PromptSRCRecipe(**settings)),
}
TEXT = (AUTO, *PUBLISHED)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "baselines": tuple(BASELINES),
    "all-text": (*TEXT, *BASELINES),
    "all": (*TEXT, *OTHERS, *BASELINES),
}

# What may stand behind a name without saying which hyperparameter and how much.
_SHORT: Mapping[str, tuple[str, float]] = {
    "lc": ("lc_weight", 1.0),
    "mi": ("mi_weight", 5.0),
    "la": ("logit_adjustment", 1.0),
    "alpha": ("alpha", 0.5),
}
_PUBLISHED = "published"


def names(group: str) -> list[str]:
    """Return the methods of a group: `baselines`, `all-text` or `all`.

    Raises:
        BadRecipe: there is no such group.
    """
    if group not in GROUPS:
        raise _unknown(group)
    return list(GROUPS[group])


def method(spec: str) -> Method:
    """Return the method that a spec names.

    A spec, such as `coop`, `kgcoop+lc+mi=5` or `coop+la+steps=100`, is a name, then `+` and what
    goes on top: `lc`, `mi`, `la` and `alpha` with a weight or without one, or any other
    hyperparameter of the recipe with its value. The text-only tuners run with our steps and
    learning rate; with `+published`, with those of their papers.

    Raises:
        BadRecipe: an unknown name, an addition to a baseline, or a value out of range.
    """
    name, *additions = spec.split("+") if spec not in BASELINES else [spec]
    schedule: Schedule = "published" if _PUBLISHED in additions else "shotline"
    settings = dict(_addition(spec, text) for text in additions if text != _PUBLISHED)
    if name in BASELINES:
        if additions:
            raise BadRecipe(
                f"Nothing goes on top of the baseline {name!r}, as {spec!r} asks for.",
                fix=f"Write {name} alone.",
                field="methods",
            )
        return BASELINES[name]
    if name in OTHERS:
        return _other(name, settings)
    if name == AUTO:
        return _checked(Tuned(settings))
    for tuner, published in PUBLISHED.items():
        if name == tuner:
            return _checked(Tuned({**published, "method": name, **settings}, schedule))
    raise _unknown(name)


def _checked(tuned: Tuned) -> Tuned:
    """Return it, once its settings are a recipe's; the images may still change the schedule."""
    Recipe.read(dict(tuned.settings))
    return tuned


def _other(name: str, settings: dict[str, Any]) -> Method:
    try:
        return OTHERS[name](settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRecipe(
            f"{name}'s {'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}.",
            fix="Correct the value behind the +.",
            field="methods",
        ) from error


def _addition(spec: str, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    field, default = _SHORT.get(key, (key, None))
    if not equals:
        if default is None:
            raise BadRecipe(
                f"{text!r} in {spec!r} has no value.",
                fix=f"Write {text}=VALUE; without one stand only {', '.join(_SHORT)}.",
                field="methods",
            )
        return field, default
    try:
        return field, json.loads(value)
    except json.JSONDecodeError:
        return field, value


def _unknown(name: str) -> BadRecipe:
    known = ", ".join([*GROUPS, *GROUPS["all"]])
    return BadRecipe(f"There is no method {name!r}.", fix=f"Known are {known}.", field="methods")
