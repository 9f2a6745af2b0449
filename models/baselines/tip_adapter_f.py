"""Tip-Adapter-F: a Tip-Adapter whose keys are trained.

Zhang et al., "Tip-Adapter: training-free adaption of CLIP for few-shot classification", ECCV 2022;
gaopengcuhk/Tip-Adapter.
"""

from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from models.backbone import Backbone
from models.baselines.tip_adapter import Cache, TipAdapter
from models.baselines.zero_shot import TEMPLATES, Templates
from models.training_set import Images, TrainingSet


@dataclass(frozen=True)
class TipAdapterF:
    """The logits of `TipAdapter`; cross-entropy moves the keys, and nothing else.

    AdamW under half a cosine, step by step, with PyTorch's own weight decay of 0.01. Not as
    published: alpha and beta are not searched, the last epoch is taken and not the best on the
    test images, and images are not augmented, since their features are cached.

    Attributes:
        alpha: weight of the cache.
        beta: how sharply it looks only at what is near.
        lr: of AdamW.
        eps: of AdamW.
        epochs: over the training images.
        batch_size: images per step.
        templates: of the text features.
    """

    alpha: float = 1.0
    beta: float = 5.5
    lr: float = 1e-3
    eps: float = 1e-4
    epochs: int = 20
    batch_size: int = 256
    templates: Templates = TEMPLATES
    needs_pixels: ClassVar[bool] = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Cache:
        """Train the keys; the seed draws the batches."""
        cache = TipAdapter(self.alpha, self.beta, self.templates).fit(backbone, data, seed)
        keys = cache.keys.clone().requires_grad_()
        self._train(replace(cache, keys=keys), data, torch.Generator().manual_seed(seed))
        return replace(cache, keys=keys.detach(), settings=asdict(self))

    def _train(self, cache: Cache, data: TrainingSet, generator: torch.Generator) -> None:
        optimizer = torch.optim.AdamW([cache.keys], self.lr, eps=self.eps)
        steps = self.epochs * -(-len(data.labels) // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(self.epochs):
            order = torch.randperm(len(data.labels), generator=generator)
            for batch in order.split(self.batch_size):
                logits = cache.logits(Images(data.features[batch]))
                optimizer.zero_grad()
                cross_entropy(logits, data.labels[batch]).backward()
                optimizer.step()
                schedule.step()
