"""The models of a tuning's folds: what they say of the images they have not seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from models.classes import ClassSpec
from models.decision import class_probabilities
from models.trust.evidence import Evidence, read_evidence, reduced_rows
from models.trust.fitting import OutOfFold, fit_rule, measure_holdout, measure_out_of_fold
from models.trust.metrics import TrustMetrics
from models.trust.photograph import PhotographStatistics
from models.trust.policy import DecisionPolicy
from models.trust.quantised import Quantised
from models.trust.rule import DecisionRule


@dataclass(frozen=True)
class FoldModels:
    """A model for each fold, tuned without its images.

    Attributes:
        left_out: the indices of each fold's images.
        embeddings: the models' class embeddings.
    """

    left_out: Sequence[Sequence[int]]
    embeddings: Float[np.ndarray, "folds n_classes dim"]

    def probabilities(
        self, features: Float[np.ndarray, "n dim"], logit_scale: float
    ) -> Float[np.ndarray, "n n_classes"]:
        """Predict every image by the model that has not seen it."""
        found = np.empty((len(features), self.embeddings.shape[1]), dtype=np.float32)
        for test, embeddings in zip(self.left_out, self.embeddings, strict=True):
            found[test] = class_probabilities(features[test], embeddings, logit_scale)
        return found

    def quantised(self) -> Quantised:
        """Return all rows, one model after the other, as the artifact keeps them."""
        return Quantised.of(self.embeddings.reshape(-1, self.embeddings.shape[-1]))


@dataclass(frozen=True)
class TrainingImages:
    """What a model was tuned on.

    Attributes:
        features: L2-normalised.
        labels: class indices.
        groups: images of one part share theirs.
        digests: of the images' bytes.
        statistics: of the photographs.
    """

    features: Float[np.ndarray, "n dim"]
    labels: Int[np.ndarray, " n"]
    groups: Sequence[str]
    digests: Sequence[str]
    statistics: Float[np.ndarray, "n 4"]


class NewImages(NamedTuple):
    """Labelled images that no tuning has seen."""

    features: Float[np.ndarray, "n dim"]
    labels: Int[np.ndarray, " n"]
    statistics: Sequence[PhotographStatistics]


class MainModel(NamedTuple):
    """The model that was tuned on all training images."""

    embeddings: Float[np.ndarray, "n_classes dim"]
    class_means: Float[np.ndarray, "n_classes dim"]
    logit_scale: float


class Trusted(NamedTuple):
    """A decision rule, the tensors that an artifact carries with it, and what it is worth."""

    rule: DecisionRule
    tensors: dict[str, np.ndarray]
    metrics: TrustMetrics


def trust(
    classes: Sequence[ClassSpec],
    images: TrainingImages,
    model: MainModel,
    folds: FoldModels,
    new: NewImages | None,
    policy: DecisionPolicy,
) -> Trusted:
    """Fit the decision rule of a model, and measure it.

    Args:
        classes: in the order of the embeddings.
        images: that it was tuned on.
        model: decides.
        folds: calibrate.
        new: to measure on; without them the training images are, each left out.
        policy: to measure by.
    """
    quantised = folds.quantised()
    seen = out_of_fold(images, folds, quantised, model.logit_scale)
    fitted = fit_rule(classes, seen)
    if new is None:
        metrics = measure_out_of_fold(classes, seen, fitted, policy)
    else:
        evidence = list(evidence_of(new.features, model, quantised))
        metrics = measure_holdout(classes, new.labels, evidence, new.statistics, fitted, policy)
    tensors = {
        "fold_embeddings": quantised.rows,
        "fold_scales": quantised.scales,
        "photographs": fitted.photographs,
    }
    return Trusted(fitted.rule, tensors, metrics)


def out_of_fold(
    images: TrainingImages, folds: FoldModels, quantised: Quantised, logit_scale: float
) -> OutOfFold:
    """Return what the fold models, as rounded as they are kept, say of what they have not seen."""
    n_folds, n_classes, _ = folds.embeddings.shape
    products = quantised.products(images.features).reshape(-1, n_folds, n_classes)
    place = np.zeros(len(images.labels), dtype=np.int64)
    nearest = np.zeros(len(images.labels), dtype=np.float32)
    for number, test in enumerate(folds.left_out):
        place[test] = number
        rest = np.setdiff1d(np.arange(len(place)), test)
        means = _class_means(images.features[rest], images.labels[rest])
        nearest[test] = (images.features[test] @ means.T).max(axis=1)
    return OutOfFold(
        labels=images.labels,
        groups=images.groups,
        digests=images.digests,
        folds=place,
        logits=logit_scale * products[np.arange(len(place)), place],
        nearest=nearest,
        statistics=images.statistics,
    )


def evidence_of(
    features: Float[np.ndarray, "n dim"], model: MainModel, folds: Quantised
) -> Iterator[Evidence]:
    """Yield what the model and its folds say of each image."""
    logits = model.logit_scale * (features @ model.embeddings.T)
    reduced = reduced_rows(folds, model.class_means).products(features)
    for own, rest in zip(logits, reduced, strict=True):
        yield read_evidence(own, rest, model.logit_scale)


def _class_means(
    features: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "k dim"]:
    """Return the L2-normalised means of the classes that there are images of."""
    means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return means / np.where(lengths > 0, lengths, 1)
