"""Sets that benchmarks choose and judge on, by name: development sets, and photographs of parts."""

from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.common import data_root, reencoded
from benchmarks.development_sets import SETS, development_set
from models.backbone import Backbone
from models.baselines.zero_shot import zero_shot
from models.dataset import Dataset
from models.features import FeatureStore, image_features
from models.imaging import View
from models.training_set import TrainingSet

# Of photographs; read from the folder that SHOTLINE_DATA names.
FOLDERS = ("xsdd", "clothing10")


class Encoded(NamedTuple):
    """A set with the features of all of its images, and the text features of its names."""

    name: str
    dataset: Dataset
    data: TrainingSet
    written: Tensor


def encoded(name: str, backbone: Backbone, store: FeatureStore) -> Encoded:
    """Read one of `SETS` or `FOLDERS` and encode what the store lacks."""
    dataset = development_set(name) if name in SETS else reencoded(data_root() / name)
    data = TrainingSet(
        [spec.prompt_name for spec in dataset.classes],
        image_features(dataset.images, backbone, View(), store),
        torch.tensor([image.label for image in dataset.images]),
        [image.group for image in dataset.images],
    )
    return Encoded(name, dataset, data, zero_shot(backbone, data.prompt_names))
