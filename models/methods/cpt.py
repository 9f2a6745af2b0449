"""CPT: an ETF within each group of classes that the backbone holds alike.

Guo et al., CVPR 2026 (arXiv 2605.11939). Ours differs where the paper was not available to us: the
groups are found by k-means on normalised text features, `round(sqrt(K))` of them, and the images'
term speaks of the whole training set in every step.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.baselines.zero_shot import TEMPLATES
from models.training_set import TrainingSet

TETF_WEIGHT, CC_WEIGHT, RS_WEIGHT = 0.25, 0.15, 0.10  # as published


class CPT:
    """Adds `0.25 * L_TETF + 0.15 * L_CC + 0.10 * L_RS`.

    The hand-written prompts `t0` are clustered once, by k-means, into M groups.

    - `L_TETF = 1/M Σ_m ‖P_mᵀP_m + (11ᵀ - I)/(k_m - 1)‖²_F` off the diagonal, over the groups of
      more than one class: each is drawn to a simplex ETF of its own.
    - `L_CC = 1/K Σ_c 1/n_c Σ_i ‖v_i - t_c‖²`: images near the text of their class.
    - `L_RS = 1/K Σ_c ‖g_c - g0_c‖₁`: unnormalised text features near those of the hand-written.

    Args:
        backbone: encodes the hand-written prompts.
        data: the classes and their images.
        guidance: factor on all three weights.
    """

    def __init__(self, backbone: Backbone, data: TrainingSet, guidance: float) -> None:
        tokens = backbone.tokenize([TEMPLATES[0].format(name) for name in data.prompt_names])
        with torch.no_grad():
            self._written = backbone.text(backbone.text.embed(tokens.to(backbone.device)))
        # A class without images is drawn nowhere: its mean is 0.
        one_hot = torch.eye(data.n_classes)[data.labels]
        means = one_hot.T @ data.features / data.counts().clamp_min(1).unsqueeze(-1)
        self._means, self._guidance = means.to(backbone.device), guidance
        self._groups = groups(normalize(self._written, dim=-1).cpu())

    def term(
        self, text: Float[Tensor, "n_classes embed_dim"], features: Float[Tensor, "b embed_dim"]
    ) -> Float[Tensor, ""]:
        """Return the weighted sum of the three losses."""
        del features
        unit = normalize(text, dim=-1)
        tetf = grouped_etf_loss(unit, self._groups)
        # ‖v - t‖² of unit vectors is 2 - 2 v·t, whose mean over a class needs its mean alone.
        cc = (2 - 2 * (self._means * unit).sum(dim=-1)).mean()
        rs = (text - self._written).abs().sum(dim=-1).mean()
        return self._guidance * (TETF_WEIGHT * tetf + CC_WEIGHT * cc + RS_WEIGHT * rs)

    def backward(self, loss: Float[Tensor, ""], term: Float[Tensor, ""], ctx: nn.Parameter) -> None:
        """Descend on the sum."""
        ctx.grad = torch.autograd.grad(loss + term, ctx)[0]


def groups(written: Float[Tensor, "n_classes embed_dim"]) -> list[list[int]]:
    """Cluster the classes into `round(sqrt(K))` groups of like text features."""
    count = max(1, round(math.sqrt(len(written))))
    found = KMeans(count, n_init=10, random_state=0).fit_predict(written.double().numpy())
    return [[int(i) for i in (found == group).nonzero()[0]] for group in range(count)]


def grouped_etf_loss(
    unit: Float[Tensor, "n_classes embed_dim"], groups: Sequence[Sequence[int]]
) -> Float[Tensor, ""]:
    """Return `L_TETF` of L2-normalised text features; groups of one class add nothing."""
    total = unit.new_zeros(())
    for group in groups:
        if len(group) > 1:
            gram = unit[list(group)] @ unit[list(group)].T
            away = (gram + 1 / (len(group) - 1)).square()
            total = total + away.sum() - away.diagonal().sum()
    return total / len(groups)
