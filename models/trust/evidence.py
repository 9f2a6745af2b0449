"""What a model says of an image, before anyone concludes anything from it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from models.trust.quantised import Quantised


class Evidence(NamedTuple):
    """The cosines of an image, as far as the model has embeddings to compare it with.

    Attributes:
        logits: of the classes.
        fold_logits: the same by each fold's model; None where there are none.
        nearest: the largest cosine to the mean image of a class; None likewise.
    """

    logits: Float[np.ndarray, " n_classes"]
    fold_logits: Float[np.ndarray, "folds n_classes"] | None = None
    nearest: float | None = None

    @property
    def probabilities(self) -> Float[np.ndarray, " n_classes"]:
        """The softmax of the logits as they are, without a rule's temperature."""
        return softmax(self.logits)


def softmax(logits: Float[np.ndarray, "*n n_classes"]) -> Float[np.ndarray, "*n n_classes"]:
    """Return probabilities, over the last axis."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def log_sum(logits: Float[np.ndarray, "*n n_classes"]) -> Float[np.ndarray, "*n"]:
    """Return `log Σ exp(logit)`, over the last axis."""
    highest = logits.max(axis=-1)
    return highest + np.log(np.exp(logits - highest[..., None]).sum(axis=-1))


def reduced_rows(fold_embeddings: Quantised, class_means: Float[np.ndarray, "k dim"]) -> Quantised:
    """Return all rows that an image is compared with beside the class embeddings themselves.

    The folds' models one after the other, then the mean image of each class.
    """
    means = Quantised.of(class_means)
    return Quantised(
        np.concatenate([fold_embeddings.rows, means.rows]),
        np.concatenate([fold_embeddings.scales, means.scales]),
    )


def read_evidence(
    logits: Float[np.ndarray, " n_classes"],
    reduced: Float[np.ndarray, " n_rows"],
    logit_scale: float,
) -> Evidence:
    """Return the evidence of an image from its logits and its products with `reduced_rows`."""
    table = reduced.reshape(-1, len(logits))
    return Evidence(logits, logit_scale * table[:-1], float(table[-1].max()))
