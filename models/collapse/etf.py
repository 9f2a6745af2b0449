"""The simplex equiangular tight frame: K unit vectors, as far apart from each other as K can be."""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import helmert
from torch import Tensor

from models.errors import BadDataset, BadRecipe


def target_cosine(n_classes: int) -> float:
    """Return `-1/(K-1)`, the cosine between any two vectors of a simplex ETF of K.

    Raises:
        BadDataset: fewer than two classes, between which there is no angle.
    """
    if n_classes < 2:
        raise BadDataset(
            f"A simplex ETF needs at least 2 classes; found {n_classes}.",
            fix="Add a class, such as one of good parts.",
            field="classes",
        )
    return -1.0 / (n_classes - 1)


def fit_etf(features: Float[Tensor, "n_classes dim"]) -> Float[Tensor, "n_classes dim"]:
    """Return the simplex ETF, rows of unit length, that lies closest to `features`.

    `M = sqrt(K/(K-1)) · B Uᵀ`, with `B` an orthonormal basis `(K, K-1)` of the complement of the
    all-ones vector and `Uᵀ` the orthogonal Procrustes solution for `Bᵀ features` (Schönemann 1966).

    Raises:
        BadRecipe: more than `dim + 1` classes, for which no simplex ETF exists.
        BadDataset: fewer than two classes.
    """
    n_classes, dim = features.shape
    scale = math.sqrt(-n_classes * target_cosine(n_classes))
    if n_classes > dim + 1:
        raise BadRecipe(
            f"No simplex ETF of {n_classes} classes exists in {dim} dimensions;"
            f" at most {dim + 1} classes have one.",
            fix="Use lc_form 'gram', which needs no frame.",
            field="lc_form",
        )
    basis = torch.from_numpy(np.ascontiguousarray(helmert(n_classes).T)).to(features)
    left, _, right = torch.linalg.svd(basis.T @ features, full_matrices=False)
    return scale * basis @ (left @ right)
