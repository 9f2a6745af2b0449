"""From image features to what the line may conclude. No torch here: the gateway runs without it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from models.classes import ClassSpec, Role

Verdict = Literal["ok", "ng", "undecidable"]


class Label(NamedTuple):
    """What a decision needs to know of a class; a `ClassSpec` will do as well."""

    name: str
    role: Role


class LabelProbability(BaseModel):
    """A class and how probable the model holds it."""

    model_config = ConfigDict(frozen=True)

    label: str
    probability: float


class Decision(BaseModel):
    """What a prediction answers.

    Attributes:
        decision: what the line may conclude; a class of role `other` gives `undecidable`.
        label: the most probable class.
        probability: of that class.
        probabilities: the most probable classes, highest first.
        prediction_set: the classes that the decision speaks of.
    """

    model_config = ConfigDict(frozen=True)

    decision: Verdict
    label: str
    probability: float
    probabilities: list[LabelProbability]
    prediction_set: list[str]


def class_probabilities(
    features: Float[np.ndarray, "n dim"],
    embeddings: Float[np.ndarray, "n_classes dim"],
    logit_scale: float,
) -> Float[np.ndarray, "n n_classes"]:
    """Return the softmax of the scaled cosines."""
    logits = logit_scale * (features @ embeddings.T)
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def decide(
    classes: Sequence[ClassSpec | Label],
    probabilities: Float[np.ndarray, " n_classes"],
    *,
    top_k: int | None = None,
) -> Decision:
    """Turn the probabilities of an image into what the line may conclude."""
    order = np.argsort(-probabilities, kind="stable").tolist()
    best = classes[order[0]]
    return Decision(
        decision="undecidable" if best.role == "other" else best.role,
        label=best.name,
        probability=float(probabilities[order[0]]),
        probabilities=[
            LabelProbability(label=classes[index].name, probability=float(probabilities[index]))
            for index in order[:top_k]
        ],
        prediction_set=[best.name],
    )
