"""The two regularisers that draw text and image features to one simplex ETF.

The idea is of Zhu et al., "Neural Collapse Anchored Prompt Tuning" (NPT), KDD 2024; its formulas
were not available to us, and these are our formulation. `t` are the L2-normalised text features of
the K classes, `mu` the L2-normalised class means of the image features.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from models.collapse.etf import target_cosine


def class_means(
    features: Float[Tensor, "n dim"], labels: Tensor, n_classes: int
) -> Float[Tensor, "n_classes dim"]:
    """Return the L2-normalised mean feature of each class; zeros for a class that is absent."""
    sums = torch.zeros(n_classes, features.shape[1], dtype=features.dtype, device=features.device)
    return normalize(sums.index_add_(0, labels, features), dim=-1)


def lc_gram(text: Float[Tensor, "n_classes dim"]) -> Float[Tensor, ""]:
    """Language-modality collapse: `mean_{i≠j} (t_i·t_j + 1/(K-1))²`; 0 exactly on a simplex ETF."""
    return _off_diagonal((text @ text.T - target_cosine(text.shape[0])).square())


def lc_anchored(
    text: Float[Tensor, "n_classes dim"], frame: Float[Tensor, "n_classes dim"]
) -> Float[Tensor, ""]:
    """Language-modality collapse to one fixed frame: `mean_c (1 - t_c·m_c)²`."""
    return (1 - (text * frame).sum(dim=-1)).square().mean()


def mi_point(
    text: Float[Tensor, "n_classes dim"],
    means: Float[Tensor, "n_classes dim"],
    present: Bool[Tensor, " n_classes"],
) -> Float[Tensor, ""]:
    """Multi-modality isomorphism: `mean_c ‖mu_c - t_c‖²` over the classes present.

    Every class has the same weight, whatever its number of images.
    """
    return (means - text)[present].square().sum(dim=-1).mean()


def mi_gram(
    text: Float[Tensor, "n_classes dim"],
    means: Float[Tensor, "n_classes dim"],
    present: Bool[Tensor, " n_classes"],
) -> Float[Tensor, ""]:
    """Multi-modality isomorphism of the angles alone: `mean_{i≠j} (mu_i·mu_j - t_i·t_j)²`."""
    text, means = text[present], means[present]
    return _off_diagonal((means @ means.T - text @ text.T).square())


def _off_diagonal(gram: Float[Tensor, "k k"]) -> Float[Tensor, ""]:
    """Return the mean of the entries off the diagonal; 0 where there are none."""
    k = gram.shape[0]
    return (gram.sum() - gram.diagonal().sum()) / max(1, k * (k - 1))
