"""Linear probe: logistic regression on image features.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021,
appendix A.3; openai/CLIP. There `C` is searched on validation images; we have none, and fix it.
"""

import math
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from models.backbone import Backbone
from models.methods.method import Linear
from models.training_set import TrainingSet


@dataclass(frozen=True)
class LinearProbe:
    """`v @ w.T + b` that minimises `C * sum_i weight(y_i) * CE_i + ‖w‖² / 2`.

    Of two classes `w` is the difference of their rows, as scikit-learn has it. A class without
    images is never chosen; of a single class, that one always is.

    Attributes:
        c: inverse of the regularisation strength.
        class_weight: `balanced` gives each class the same weight, `n / (K n_c)` for an image of
            class c, whatever its number of images.
    """

    c: float = 10.0
    class_weight: Literal["balanced"] | None = None
    needs_pixels: ClassVar[bool] = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Linear:
        """Solve by L-BFGS."""
        del backbone, seed
        present = data.labels.unique()
        embeddings = torch.zeros(data.n_classes, data.features.shape[1])
        bias = torch.full((data.n_classes,), -math.inf)
        if len(present) == 1:
            bias[present] = 0
        else:
            embeddings[present], bias[present] = self._solve(data.features, data.labels)
        return Linear(embeddings, bias=bias, settings=asdict(self))

    def _solve(
        self, features: Float[Tensor, "n dim"], labels: Int[Tensor, " n"]
    ) -> tuple[Float[Tensor, "present dim"], Float[Tensor, " present"]]:
        """Return weights and bias of the classes that occur, in their order."""
        probe = LogisticRegression(C=self.c, class_weight=self.class_weight, max_iter=5000)
        probe.fit(features.numpy(), labels.numpy())
        weight = torch.from_numpy(probe.coef_).float()
        bias = torch.from_numpy(probe.intercept_).float()
        if len(weight) == 1:
            # Of two classes scikit-learn keeps the logit of the second against the first.
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        return weight, bias
