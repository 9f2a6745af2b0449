"""How collapsed features are: the four measures of neural collapse.

Papyan, Han, Donoho, "Prevalence of Neural Collapse", PNAS 2020; the distances of NC2 and NC3 as in
Zhu et al., NeurIPS 2021; CDNV of Galanti et al., ICLR 2022.
NC2 and NC3 work on centred features; the regularisers of `models.collapse.regularizers` work on
raw cosines. Every value is a finite number: where two class means coincide, their distance counts
as the rounding error of the arithmetic, and what is divided by it is large.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from models.collapse.measures import CollapseMetrics
from models.collapse.regularizers import class_means, lc_gram, mi_point


def collapse_metrics(
    text: Float[Tensor, "n_classes dim"],
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
) -> CollapseMetrics:
    """Measure text features `(n_classes, dim)` against labelled image features `(n, dim)`.

    Every class must have at least one image.
    """
    n_classes = text.shape[0]
    means = class_means(features, labels, n_classes)
    present = torch.ones(n_classes, dtype=torch.bool, device=text.device)
    agree = (features @ text.T).argmax(dim=1) == (features @ means.T).argmax(dim=1)
    cosines = text @ text.T
    values = {
        "text_nc2": nc2(text),
        "image_nc2": nc2(means),
        "text_to_image_nc3": nc3(text, means),
        "nc1": nc1(features, labels, n_classes),
        "cdnv": cdnv(features, labels, n_classes),
        "nc4": agree.float().mean(),
        "text_equinorm": equinorm(text),
        "text_equiangularity": equiangularity(text),
        "text_cosine": _pairs(cosines).mean(),
        "lc": lc_gram(text),
        "mi": mi_point(text, means, present),
    }
    return CollapseMetrics(**{name: float(value) for name, value in values.items()})


def nc1(
    features: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, ""]:
    """Return `tr(pinv(S_B) S_W) / K`; 0 when all images of a class have one feature."""
    means, global_mean = _raw_means(features, labels, n_classes)
    within = features - means[labels]
    between = (means - global_mean) / math.sqrt(n_classes)
    # S_B has rank K-1 at most: its pseudo-inverse through the small (K, dim) factor is exact and
    # fast.
    _, scale, axes = torch.linalg.svd(between, full_matrices=False)
    eps = torch.finfo(scale.dtype).eps
    kept = scale >= scale.max() * max(between.shape) * eps
    whitened = within @ axes[kept].T / scale[kept].clamp_min(eps)
    return whitened.square().sum() / features.shape[0] / n_classes


def cdnv(
    features: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], n_classes: int
) -> Float[Tensor, ""]:
    """Return the mean over pairs of `(var_i + var_j) / (2 ‖mu_i - mu_j‖²)`."""
    means, _ = _raw_means(features, labels, n_classes)
    spread = (features - means[labels]).square().sum(dim=1)
    sums = torch.zeros(n_classes, dtype=features.dtype, device=features.device)
    counts = torch.bincount(labels, minlength=n_classes)
    variance = sums.index_add_(0, labels, spread) / counts
    distance = (means[:, None] - means[None, :]).square().sum(dim=-1)
    distance = distance.clamp_min(torch.finfo(distance.dtype).eps ** 2)
    ratios = (variance[:, None] + variance[None, :]) / (2 * distance)
    return _pairs(ratios).mean()


def nc2(vectors: Float[Tensor, "n_classes dim"]) -> Float[Tensor, ""]:
    """Return `‖G/‖G‖_F - (I - 11ᵀ/K)/sqrt(K-1)‖_F`, `G` the Gram matrix of the centred vectors.

    Identically 0 for two classes, where only the raw cosine against -1 tells anything.
    """
    centred = vectors - vectors.mean(dim=0)
    return _etf_distance(centred @ centred.T)


def nc3(
    text: Float[Tensor, "n_classes dim"], means: Float[Tensor, "n_classes dim"]
) -> Float[Tensor, ""]:
    """Return the same distance for `G = T·Muᵀ`, the centred text features against image means."""
    return _etf_distance((text - text.mean(dim=0)) @ (means - means.mean(dim=0)).T)


def equinorm(vectors: Float[Tensor, "n_classes dim"]) -> Float[Tensor, ""]:
    """Return the standard deviation over the mean of the centred vectors' lengths."""
    lengths = (vectors - vectors.mean(dim=0)).norm(dim=1)
    return lengths.std(correction=0) / lengths.mean().clamp_min(torch.finfo(lengths.dtype).eps)


def equiangularity(vectors: Float[Tensor, "n_classes dim"]) -> Float[Tensor, ""]:
    """Return the standard deviation of the centred vectors' pairwise cosines."""
    directions = normalize(vectors - vectors.mean(dim=0), dim=1)
    return _pairs(directions @ directions.T).std(correction=0)


def _etf_distance(gram: Float[Tensor, "k k"]) -> Float[Tensor, ""]:
    k = gram.shape[0]
    ideal = (torch.eye(k).to(gram) - 1 / k) / math.sqrt(k - 1)
    return (gram / gram.norm().clamp_min(torch.finfo(gram.dtype).tiny) - ideal).norm()


def _pairs(matrix: Float[Tensor, "k k"]) -> Float[Tensor, " pairs"]:
    """Return the entries above the diagonal."""
    rows, columns = torch.triu_indices(len(matrix), len(matrix), offset=1, device=matrix.device)
    return matrix[rows, columns]


def _raw_means(
    features: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], n_classes: int
) -> tuple[Float[Tensor, "n_classes dim"], Float[Tensor, " dim"]]:
    """Return the class means, not normalised, and their mean."""
    sums = torch.zeros(n_classes, features.shape[1], dtype=features.dtype, device=features.device)
    counts = torch.bincount(labels, minlength=n_classes)
    means = sums.index_add_(0, labels, features) / counts[:, None]
    return means, means.mean(dim=0)
