"""What a tuning is compared with beside zero-shot, and what it was wrong about."""

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from models.backbone import Backbone
from models.baselines.linear_probe import LinearProbe
from models.dataset import LabelledImage
from models.evaluation.results import WrongImage
from models.training_set import Images, TrainingSet

# A page shows no more, and an artifact stays small.
MAX_WRONG: Final = 8
# Classes times images up to which a probe takes seconds: its work grows with both.
_MAX_PROBED: Final = 1_000_000


def probe_probabilities(
    backbone: Backbone,
    data: TrainingSet,
    folds: Sequence[tuple[Sequence[int], Sequence[int]]],
    holdout: Float[Tensor, "held_out dim"],
) -> Float[Tensor, "judged n_classes"] | None:
    """Return what a linear probe, every class with the same weight, says of images it has not seen.

    Args:
        backbone: see `LinearProbe.fit`.
        data: the training images.
        folds: the indices to learn from and to predict; where there are none, it learns from all
            training images and predicts the holdout.
        holdout: the features of those.

    Returns:
        `None` where there are too many classes and images for it.
    """
    if data.n_classes * len(data.labels) > _MAX_PROBED:
        return None
    method = LinearProbe(class_weight="balanced")
    if not folds:
        return method.fit(backbone, data, 0).logits(Images(holdout)).softmax(dim=1)
    probabilities = torch.empty(len(data.labels), data.n_classes)
    for train, test in folds:
        probe = method.fit(backbone, data.subset(train), 0)
        probabilities[list(test)] = probe.logits(Images(data.features[list(test)])).softmax(dim=1)
    return probabilities


def wrong_images(
    images: Sequence[LabelledImage],
    probabilities: Float[Tensor, "n n_classes"],
    names: Sequence[str],
) -> list[WrongImage]:
    """Return the images that were decided wrong with the highest probability, at most eight."""
    shares, predicted = (values.tolist() for values in probabilities.max(dim=1))
    wrong = [index for index, image in enumerate(images) if predicted[index] != image.label]
    wrong.sort(key=lambda index: (-shares[index], images[index].sha256))
    return [
        WrongImage(
            sha256=images[index].sha256,
            # A file's name can hold what UTF-8 cannot.
            name=images[index].name.encode("utf-8", "replace").decode(),
            label=names[images[index].label],
            predicted=names[predicted[index]],
            probability=shares[index],
        )
        for index in wrong[:MAX_WRONG]
    ]
