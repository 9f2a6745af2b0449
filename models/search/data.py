"""What the trials of a search run on: the training images' features, and never the holdout's."""

from collections.abc import Sequence

import torch

from models.backbone import Backbone
from models.classes import ClassSpec
from models.dataset import LabelledImage
from models.features import FeatureStore, image_features
from models.imaging import View
from models.progress import Progress, no_progress
from models.training_set import TrainingSet


def training_data(
    classes: Sequence[ClassSpec],
    images: Sequence[LabelledImage],
    backbone: Backbone,
    view: View,
    store: FeatureStore,
    *,
    progress: Progress = no_progress,
) -> TrainingSet:
    """Return the training images as a search takes them; what the store lacks is computed.

    Raises:
        BadImage: an image cannot be decoded.
    """
    train = [image for image in images if image.split == "train"]
    return TrainingSet(
        [spec.prompt_name for spec in classes],
        image_features(train, backbone, view, store, progress=progress),
        torch.tensor([image.label for image in train], dtype=torch.long),
        [image.group for image in train],
    )
