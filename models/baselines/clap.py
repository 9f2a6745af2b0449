"""CLAP: a linear probe from zero-shot, held to each class's text as far as that is right.

Silva-Rodríguez et al., "A closer look at the few-shot adaptation of large vision-language models",
CVPR 2024; jusiro/CLAP.
"""

import math
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from models.backbone import Backbone
from models.baselines.zero_shot import TEMPLATES, Templates, zero_shot
from models.methods.method import Linear, probabilities
from models.training_set import Images, TrainingSet


@dataclass(frozen=True)
class CLAP:
    """`s * v @ (w_c / ‖w_c‖)`, from `w = t`, by `CE + constraint * mean_c lambda_c ‖w_c - t_c‖²`.

    The multiplier `lambda_c` is what zero-shot is worth for class c: the mean probability that it
    gives the class's own training images (1 for a class without any). It is set once, as one step
    of an augmented Lagrangian, and stays. SGD with momentum; the first epoch at `warmup_lr`, then
    half a cosine, epoch by epoch.

    Not as published: images are not augmented, since their features are cached (the code draws on
    twenty views of each), and the code takes text features whose length is not 1 for `t`.

    Attributes:
        constraint: in front of the multipliers; 0 gives the paper's ZS-LP.
        lr: of SGD.
        warmup_lr: in the first epoch.
        momentum: of SGD.
        epochs: over the training images.
        batch_size: images per step.
        templates: of the text features `t`.
    """

    constraint: float = 1.0
    lr: float = 0.1
    warmup_lr: float = 1e-5
    momentum: float = 0.9
    epochs: int = 300
    batch_size: int = 256
    templates: Templates = TEMPLATES
    needs_pixels: ClassVar[bool] = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Linear:
        """Train the prototypes; the seed draws the batches."""
        text = zero_shot(backbone, data.prompt_names, self.templates)
        before = Linear(text, backbone.logit_scale)
        weight = self._train(before, data, torch.Generator().manual_seed(seed))
        return Linear(
            normalize(weight, dim=-1),
            backbone.logit_scale,
            text_features=text,
            settings=asdict(self),
        )

    def _train(
        self, before: Linear, data: TrainingSet, generator: torch.Generator
    ) -> Float[Tensor, "n_classes embed_dim"]:
        text, strength = before.embeddings, self.constraint * multipliers(before, data)
        weight = text.clone().requires_grad_()
        optimizer = torch.optim.SGD([weight], self.lr, self.momentum)
        for epoch in range(self.epochs):
            optimizer.param_groups[0]["lr"] = self._learning_rate(epoch)
            order = torch.randperm(len(data.labels), generator=generator)
            for batch in order.split(self.batch_size):
                logits = before.scale * data.features[batch] @ normalize(weight, dim=-1).T
                distances = (weight - text).square().sum(dim=-1)
                loss = cross_entropy(logits, data.labels[batch]) + (strength * distances).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return weight.detach()

    def _learning_rate(self, epoch: int) -> float:
        """The reference code's cosine starts with the second epoch, after the warm-up."""
        if epoch == 0:
            return self.warmup_lr
        return self.lr * (1 + math.cos(math.pi * (epoch - 1) / self.epochs)) / 2


def multipliers(before: Linear, data: TrainingSet) -> Float[Tensor, " n_classes"]:
    """Return the mean probability that `before` gives each class's own training images."""
    own = probabilities(before, Images(data.features)).gather(1, data.labels[:, None])[:, 0]
    sums = torch.zeros(data.n_classes).index_add_(0, data.labels, own)
    counts = data.counts()
    return torch.where(counts > 0, sums / counts.clamp_min(1), 1.0)
