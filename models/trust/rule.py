"""The decision rule that an artifact carries: what its own calibration found. No torch here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class OutlierRule(BaseModel):
    """From where on an image is unlike those that the model was tuned on.

    Attributes:
        level: about so large a share of images like the training images is refused at most.
        distance: largest `1 - cosine` to the nearest class mean.
        energy: largest free energy, `-log Σ exp(logit)`.
        luminance, contrast, sharpness: lowest and highest, see `models.trust.photograph`.
        saturated: largest share of pixels that are as good as white.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float
    distance: float
    energy: float
    luminance: tuple[float, float]
    contrast: tuple[float, float]
    sharpness: tuple[float, float]
    saturated: float


class DecisionRule(BaseModel):
    """What turns an image's cosines into calibrated probabilities and a prediction set.

    Attributes:
        version: of the rule's form.
        temperature: logits are divided by it for the probabilities.
        folds: how many fold models the artifact carries, in `fold_embeddings`.
        scores: nonconformity scores of the calibration images, `scores[class][fold]`: one for each
            group of images, by the model of the fold that did not see it.
        role_scores: the same of the groups of each role, by the role's probability.
        outliers: None where there were too few images to tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    temperature: float = Field(gt=0)
    folds: int = Field(ge=2)
    scores: list[list[list[float]]]
    role_scores: dict[str, list[list[float]]]
    outliers: OutlierRule | None
