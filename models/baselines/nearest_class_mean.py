"""Nearest class mean: every image goes to the class whose mean feature is closest in angle."""

from jaxtyping import Float, Int
from torch import Tensor

from models.collapse.regularizers import class_means


def nearest_class_mean(
    features: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, "n_classes dim"]:
    """Return the L2-normalised class means, used as class embeddings."""
    return class_means(features, labels, n_classes)
