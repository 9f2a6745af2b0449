"""LP++: a linear probe whose weights blend class prototypes and text features.

Huang et al., "LP++: a surprisingly strong linear probe for few-shot CLIP", CVPR 2024;
FereshteShakeri/FewShot-CLIP-Strong-Baseline.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from models.backbone import Backbone
from models.baselines.zero_shot import TEMPLATES, Templates, zero_shot
from models.methods.method import Linear
from models.training_set import TrainingSet


@dataclass(frozen=True)
class LPPlusPlus:
    """`v @ (w_c + alpha_c * t_c)`: prototypes `w` and text multipliers `alpha`, without a scale.

    The mean cross-entropy is minimised by block coordinate descent on the full batch. The steps
    follow from Lipschitz constants of the data, `4 n / lambda_max(VᵀV)` for `w` and
    `n / (4 max_c sum_i (v_i·t_c)²)` for `alpha`. The start does as well: `w_c` is the class mean
    times `n / K`, which of S images of each class is their sum, and all `alpha_c` are
    `alpha_start * mean_c mean_{i in c} v_i·t_c`. Momentum and the cycle of the blocks are of the
    reference code.

    Not as there: that code has a bias with a random start (the paper none, nor we), lets the
    gradient of alpha grow from step to step without a reset (here it is that of the step), and
    takes the iteration that is best on validation images (here the last).

    Attributes:
        iterations: on the full batch.
        momentum: of the steps of `w`.
        alpha_every: iterations from one step of `alpha` to the next.
        alpha_start: see above.
        templates: of the text features `t`.
    """

    iterations: int = 300
    momentum: float = 0.9
    alpha_every: int = 10
    alpha_start: float = 250.0
    templates: Templates = TEMPLATES
    needs_pixels: ClassVar[bool] = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Linear:
        """Descend; nothing is drawn."""
        del seed
        text = zero_shot(backbone, data.prompt_names, self.templates)
        weight, alpha = self._descend(text, data)
        return Linear(weight + alpha[:, None] * text, text_features=text, settings=asdict(self))

    def _descend(
        self, text: Float[Tensor, "n_classes embed_dim"], data: TrainingSet
    ) -> tuple[Float[Tensor, "n_classes embed_dim"], Float[Tensor, " n_classes"]]:
        """Return `w` and `alpha`."""
        features, n = data.features, len(data.labels)
        target = one_hot(data.labels, data.n_classes).float()
        cosines = features @ text.T
        weight, alpha = self._start(features, target, cosines)
        weight_lr = 4 * n / torch.linalg.matrix_norm(features, 2).square()
        alpha_lr = n / (4 * cosines.square().sum(dim=0).max())
        velocity = torch.zeros_like(weight)
        for iteration in range(1, self.iterations + 1):
            logits = features @ weight.T + alpha * cosines
            # The gradient of the mean cross-entropy by the logits.
            residual = (logits.softmax(dim=-1) - target) / n
            velocity = self.momentum * velocity + residual.T @ features
            weight = weight - weight_lr * velocity
            if iteration % self.alpha_every == 0:
                alpha = alpha - alpha_lr * (residual * cosines).sum(dim=0)
        return weight, alpha

    def _start(
        self,
        features: Float[Tensor, "n embed_dim"],
        target: Float[Tensor, "n n_classes"],
        cosines: Float[Tensor, "n n_classes"],
    ) -> tuple[Float[Tensor, "n_classes embed_dim"], Float[Tensor, " n_classes"]]:
        """Return the first `w` and `alpha`; a class without images starts from 0."""
        n, n_classes = target.shape
        share = target / target.sum(dim=0).clamp_min(1)
        means, fits = share.T @ features, (share * cosines).sum(dim=0)
        return n / n_classes * means, self.alpha_start * fits.mean().repeat(n_classes)
