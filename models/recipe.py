"""The recipe: every hyperparameter of a tuning, validated once and never changed."""

import hashlib
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.errors import BadName, BadRecipe
from models.names import clean_text

TextMethod = Literal["coop", "kgcoop", "prograd", "cpt"]

# Tuners whose text features depend on the image, or that change the image encoder of all projects.
_NOT_SERVED = ("cocoop", "ivlp", "maple", "promptsrc")

_SHOWN = 100

_FEWEST_FOLDS, _MOST_FOLDS = 3, 5
_ROWS = 30  # class embeddings of all folds together, where there are more than the fewest
_FOLD_IMAGES = 6


class Recipe(BaseModel):
    """Hyperparameters of a tuning; two tunings of one recipe, snapshot and seed give one artifact.

    Attributes:
        method: CoOp as it is, or with a guide that keeps what the backbone knows: see
            `models.methods.guide`.
        guidance: factor on the published weight of that guide.
        n_ctx: number of context tokens.
        class_specific: a context of its own for each class instead of one for all.
        ctx_init: the phrase whose embeddings the context starts from; random where `None`.
        class_token_position: where the class name stands among the context tokens.
        steps: gradient steps.
        batch_size: images per step; the gradient's rounding depends on it.
        lr: learning rate at its highest.
        warmup_steps: steps of linear warm-up before the cosine decay.
        momentum: of SGD.
        weight_decay: on the context tokens.
        lc_weight: weight of language-modality collapse, see `models.collapse.regularizers`.
        lc_form: rotation-free `gram`, or `anchored` to one fixed simplex ETF.
        mi_weight: weight of multi-modality isomorphism.
        mi_form: `point` (every class to its own image mean) or `gram` (cosines alone).
        logit_adjustment: factor of log class frequency added to the logits in training
            (Menon et al. 2021); 0 is plain cross-entropy.
        fusion: how the classifier joins texts and images, see `models.fusion`: `posterior` by what
            is known of each class, or `mean` by one weight for all.
        prior_images: of `posterior`: images per dimension that stand for a round scatter.
        caution: of `posterior`: how much less than its own noise says a class is believed that has
            fewer images than the largest.
        alpha: of `mean`: weight of the image class means in `w_c ∝ t_c + alpha * mu_c`; 0 is
            pure text.
        folds: of the cross-validation that calibrates decisions, and that measures where there is
            no holdout; None for `n_folds`.
        threads: CPU threads in tuning; sums are rounded by how they are split over threads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: TextMethod = "kgcoop"
    guidance: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    n_ctx: Annotated[int, Field(ge=1, le=64)] = 4
    class_specific: bool = False
    ctx_init: str | None = "a photo of a"
    class_token_position: Literal["end", "middle", "front"] = "end"  # noqa: S105 - no password
    steps: Annotated[int, Field(ge=1, le=100_000)] = 200
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    lr: Annotated[float, Field(gt=0, le=100)] = 0.2
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    lc_weight: Annotated[float, Field(ge=0, le=1000)] = 0.0
    lc_form: Literal["gram", "anchored"] = "gram"
    mi_weight: Annotated[float, Field(ge=0, le=1000)] = 0.0
    mi_form: Literal["point", "gram"] = "point"
    logit_adjustment: Annotated[float, Field(ge=0, le=10)] = 1.0
    fusion: Literal["mean", "posterior"] = "posterior"
    prior_images: Annotated[float, Field(gt=0, le=1000)] = 0.25
    caution: Annotated[float, Field(ge=0, le=1000)] = 6.0
    alpha: Annotated[float, Field(ge=0, le=100)] = 0.25
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    threads: Annotated[int, Field(ge=1, le=256)] = 2

    @field_validator("method", mode="before")
    @classmethod
    def _check_served(cls, method: object) -> object:
        if method in _NOT_SERVED:
            raise BadRecipe(
                f"The method {method!r} cannot be served from fixed class embeddings.",
                fix=f"Use one of {', '.join(get_args(TextMethod))}; `shotline bench` compares all.",
                field="method",
            )
        return method

    @field_validator("ctx_init")
    @classmethod
    def _check_phrase(cls, phrase: str | None) -> str | None:
        if phrase is None:
            return None
        try:
            return clean_text(phrase, "ctx_init")
        except BadName as error:
            raise BadRecipe(error.problem, fix=error.fix, field="ctx_init") from error

    @model_validator(mode="after")
    def _check_warmup(self) -> "Recipe":
        if self.warmup_steps >= self.steps and self.warmup_steps > 0:
            raise BadRecipe(
                f"warmup_steps is {self.warmup_steps}, which leaves nothing of {self.steps} steps.",
                fix="Warm up for fewer steps than there are.",
                field="warmup_steps",
            )
        return self

    @classmethod
    def read(cls, values: Literal["auto"] | dict[str, Any]) -> "Recipe":
        """Validate what came from outside: `auto`, or hyperparameters that differ from it.

        `auto` is one recipe for all sets, which was chosen on development sets: a choice by
        cross-validation on the images at hand lost accuracy (ADR 007). What has to fit each set is
        estimated while tuning. `models.search` tries other recipes on the images at hand.

        Raises:
            BadRecipe: an unknown name, or a value out of range.
        """
        try:
            return cls.model_validate({} if values == "auto" else values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            given = repr(first["input"])
            raise BadRecipe(
                f"The recipe's {field} is {given[:_SHOWN]}: {first['msg']}.",
                fix=f"Known fields: {', '.join(cls.model_fields)}.",
                field=field,
            ) from error

    def n_folds(self, n_classes: int, n_images: int) -> int:
        """Return how many folds the cross-validation has, unless the images allow fewer.

        With more of them its models are more alike, and prediction sets smaller. But each is a
        tuning, and a row for each class in the memory of a gateway; and what is usual cannot be
        told from a fold of a few images.
        """
        if self.folds is not None:
            return self.folds
        return max(_FEWEST_FOLDS, min(_MOST_FOLDS, _ROWS // n_classes, n_images // _FOLD_IMAGES))

    @property
    def digest(self) -> str:
        """`sha256:` over all hyperparameters."""
        return "sha256:" + hashlib.sha256(self.model_dump_json().encode()).hexdigest()
