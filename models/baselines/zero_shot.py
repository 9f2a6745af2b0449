"""Zero-shot: the backbone's own text features of hand-written prompts.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021;
openai/CLIP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from torch import Tensor
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.methods.method import Linear
from models.training_set import Images, TrainingSet

Templates = tuple[str, ...]

TEMPLATES: Templates = ("a photo of a {}.",)

# open_clip keeps them as functions; their text is what is asked for here.
IMAGENET_TEMPLATES: Templates = tuple(write("{}") for write in OPENAI_IMAGENET_TEMPLATES)


def zero_shot(
    backbone: Backbone, prompt_names: Sequence[str], templates: Sequence[str] = TEMPLATES
) -> Float[Tensor, "n_classes embed_dim"]:
    """Return the L2-normalised class embeddings of the templates filled with each name.

    Of several templates the L2-normalised features are averaged, and normalised again.
    """
    # One template at a time: 80 of them with 1,000 names are more than a text tower holds at once.
    features = [
        backbone.encode_texts([template.format(name) for name in prompt_names])
        for template in templates
    ]
    return normalize(torch.stack(features).mean(dim=0), dim=-1)


@dataclass(frozen=True)
class ZeroShot:
    """`s * v @ t.T`; the images are not looked at.

    Attributes:
        templates: with `{}` where the name goes.
    """

    templates: Templates = TEMPLATES
    needs_pixels: ClassVar[bool] = False

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> "ZeroShotClassifier":
        """Encode the names."""
        del seed
        return self.classifier(backbone, data.prompt_names)

    def classifier(self, backbone: Backbone, prompt_names: Sequence[str]) -> "ZeroShotClassifier":
        """Return a classifier of classes of these names."""
        text = zero_shot(backbone, prompt_names, self.templates)
        return ZeroShotClassifier(self, backbone, text)


@dataclass(frozen=True)
class ZeroShotClassifier:
    """Text features of names, and what it takes to encode others."""

    method: ZeroShot
    backbone: Backbone
    text_features: Float[Tensor, "n_classes embed_dim"]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The templates."""
        return asdict(self.method)

    def image_features(self, images: Images) -> Float[Tensor, "n embed_dim"]:
        """Return the features as they are."""
        return images.features

    def logits(self, images: Images) -> Float[Tensor, "n n_classes"]:
        """Return scaled cosines with the text features."""
        return Linear(self.text_features, self.backbone.logit_scale).logits(images)

    def renamed(self, prompt_names: Sequence[str]) -> "ZeroShotClassifier":
        """Return a classifier of classes of these names."""
        return self.method.classifier(self.backbone, prompt_names)
