"""A CLIP with layers enough for deep prompts, and drawn images that it can be tuned on."""

from functools import cache

import numpy as np
import open_clip
import torch
from torch import Tensor

from models.backbone import Backbone
from models.training_set import Images, TrainingSet
from tests.unit.models.conftest import COLOURS, build_clip, noise_image

# In this order random towers are wrong about most images at first, and can be taught better soon.
NAMES = ["stain", "scratch", "good"]


@cache
def deep_backbone(*, vision_layers: int = 3, text_layers: int = 3) -> Backbone:
    clip = build_clip(vision={"layers": vision_layers}, layers=text_layers)
    return Backbone(clip, open_clip.SimpleTokenizer(), source="deep", device="cpu")


@cache
def drawn_pixels(n_classes: int, per_class: int, first: int) -> Tensor:
    images = [
        noise_image(1000 * label + number, colour, 32)
        for label, colour in zip(range(n_classes), COLOURS.values(), strict=False)
        for number in range(first, first + per_class)
    ]
    return torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) for i in images])


def drawn_data(n_classes: int = 3, per_class: int = 4, first: int = 0) -> TrainingSet:
    """Return images of one colour per class, with features and pixels."""
    pixels = drawn_pixels(n_classes, per_class, first)
    labels = torch.arange(n_classes).repeat_interleave(per_class)
    features = deep_backbone().encode_images(pixels)
    return TrainingSet(NAMES[:n_classes], features, labels, pixels=lambda index: pixels[index])


def asked(data: TrainingSet) -> Images:
    return Images(data.features, data.pixels)
