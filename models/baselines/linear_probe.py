"""Linear probe: logistic regression on image features (Radford et al. 2021, appendix A.3)."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor


def linear_probe(
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
    test_features: Float[Tensor, "m dim"],
    *,
    c: float = 10.0,
    class_weight: Literal["balanced"] | None = None,
) -> Float[Tensor, "m n_classes"]:
    """Fit on labelled features and return the class probabilities of `test_features`.

    Args:
        features: L2-normalised, of the training images.
        labels: every class from 0 up must occur.
        test_features: to be classified.
        c: inverse of the regularisation strength.
        class_weight: `balanced` gives each class the same weight, whatever its number of images.
    """
    probe = LogisticRegression(C=c, class_weight=class_weight, max_iter=5000)
    probe.fit(features.numpy(), labels.numpy())
    return torch.from_numpy(probe.predict_proba(test_features.numpy()))
