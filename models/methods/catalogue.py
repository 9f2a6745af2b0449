"""Methods by their names, such as `coop+lc+mi`: a few of them, until the whole list is here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from models.backbone import Backbone
from models.baselines.nearest_class_mean import nearest_class_mean
from models.baselines.zero_shot import TEMPLATE, zero_shot
from models.errors import BadRecipe
from models.methods.method import Classifier, Linear, Method
from models.recipe import Recipe
from models.training_set import Images, TrainingSet
from models.tuner import Tuner

_PARTS: dict[str, dict[str, Any]] = {
    "lc": {"lc_weight": 1.0},
    "mi": {"mi_weight": 5.0},
    "la": {"logit_adjustment": 1.0},
}
_WEIGHTS = {"lc": "lc_weight", "mi": "mi_weight", "la": "logit_adjustment"}
_PLAIN = {"class_specific": False, "mi_weight": 0.0, "logit_adjustment": 0.0, "alpha": 0.0}


@dataclass(frozen=True)
class _Renaming:
    """A linear classifier that can be given other names."""

    linear: Linear
    backbone: Backbone
    ctx: Float[Tensor, "n_ctx width"] | None = None
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def text_features(self) -> Float[Tensor, "n_classes embed_dim"] | None:
        return self.linear.text_features

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.linear.settings

    def image_features(self, images: Images) -> Float[Tensor, "n embed_dim"]:
        return images.features

    def logits(self, images: Images) -> Float[Tensor, "n n_classes"]:
        return self.linear.logits(images)

    def renamed(self, prompt_names: Sequence[str]) -> "Classifier | None":
        if self.ctx is None:
            text = zero_shot(self.backbone, prompt_names)
        elif self.ctx.ndim == 3:
            return None
        else:
            from models.prompts.coop import CoOp  # noqa: PLC0415

            prompts = CoOp(self.backbone, prompt_names, self.recipe, torch.Generator())
            with torch.no_grad():
                prompts.ctx.copy_(self.ctx)
                text = torch.nn.functional.normalize(self.backbone.text(prompts()), dim=-1).cpu()
        return replace(self, linear=replace(self.linear, embeddings=text, text_features=text))


@dataclass(frozen=True)
class _ZeroShot:
    needs_pixels: bool = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Classifier:
        text = zero_shot(backbone, data.prompt_names)
        linear = Linear(text, backbone.logit_scale, None, text, {"template": TEMPLATE})
        return _Renaming(linear, backbone)


@dataclass(frozen=True)
class _NearestClassMean:
    needs_pixels: bool = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Classifier:
        means = nearest_class_mean(data.features, data.labels, data.n_classes)
        return Linear(means, backbone.logit_scale)


@dataclass(frozen=True)
class _LinearProbe:
    class_weight: Literal["balanced"] | None = None
    needs_pixels: bool = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Classifier:
        probe = LogisticRegression(C=10.0, class_weight=self.class_weight, max_iter=5000)
        probe.fit(data.features.numpy(), data.labels.numpy())
        weights = torch.from_numpy(probe.coef_).float()
        bias = torch.from_numpy(probe.intercept_).float()
        if data.n_classes == 2:
            weights, bias = torch.cat([-weights, weights]) / 2, torch.cat([-bias, bias]) / 2
        return Linear(weights, 1.0, bias, None, {"c": 10.0, "class_weight": self.class_weight})


@dataclass(frozen=True)
class _CoOp:
    recipe: Recipe
    needs_pixels: bool = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Classifier:
        tuner = Tuner(backbone, data, self.recipe, torch.Generator().manual_seed(seed))
        text = tuner.run()
        linear = Linear(text, backbone.logit_scale, None, text, self.recipe.model_dump())
        return _Renaming(linear, backbone, tuner.prompts.ctx.detach().clone(), self.recipe)


_BASELINES: dict[str, Method] = {
    "zero-shot": _ZeroShot(),
    "nearest-class-mean": _NearestClassMean(),
    "linear-probe": _LinearProbe(),
    "linear-probe-balanced": _LinearProbe("balanced"),
}


def names(group: str) -> list[str]:
    """Return the methods that `all`, `all-text` or `baselines` stands for.

    Raises:
        BadRecipe: another group.
    """
    if group in ("all", "all-text"):
        return [*_BASELINES, "coop"]
    if group == "baselines":
        return list(_BASELINES)
    raise _unknown(group)


def method(spec: str) -> Method:
    """Return the method of a spec such as `coop+lc=10+mi`.

    Raises:
        BadRecipe: an unknown method or part.
    """
    base, *parts = spec.split("+")
    if base in _BASELINES and not parts:
        return _BASELINES[base]
    if base != "coop":
        raise _unknown(spec)
    values: dict[str, Any] = dict(_PLAIN)
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals and name in _PARTS:
            values |= _PARTS[name]
        elif equals:
            values[_WEIGHTS.get(name, name)] = _number(value)
        else:
            raise _unknown(spec)
    return _CoOp(Recipe.read(values))


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _unknown(spec: str) -> BadRecipe:
    return BadRecipe(
        f"There is no method {spec!r}.",
        fix=f"Known methods: {', '.join(names('all'))}; groups: all, all-text, baselines.",
        field="methods",
    )
