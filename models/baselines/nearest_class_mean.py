"""Nearest class mean: every image goes to the class whose mean feature is closest in angle.

Mensink et al., "Distance-based image classification: generalizing to new classes at near-zero
cost", PAMI 2013; here by cosine, as features of CLIP are compared.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from models.backbone import Backbone
from models.collapse.regularizers import class_means
from models.methods.method import Linear
from models.training_set import TrainingSet


@dataclass(frozen=True)
class NearestClassMean:
    """`s * v @ mu.T`, `mu_c` the L2-normalised class means, `s` the backbone's scale.

    A class without images is never chosen.
    """

    needs_pixels: ClassVar[bool] = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Linear:
        """Average the features of each class."""
        del seed
        means = class_means(data.features, data.labels, data.n_classes)
        bias = torch.zeros(data.n_classes).masked_fill(data.counts() == 0, -math.inf)
        return Linear(means, backbone.logit_scale, bias)
