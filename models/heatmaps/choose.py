"""The way of making a map that suits the tower."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.backbone import Backbone
from models.heatmaps.attention import attention_blocks, attention_maps
from models.heatmaps.gradcam import grad_cam, last_stage
from models.heatmaps.occlusion import occlusion

Way = Literal["grad-cam", "attention", "occlusion"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)


@dataclass(frozen=True)
class Heatmaps:
    """Where the evidence is.

    Attributes:
        values: of each image, from 0 to 1, `(b, h, w)`; all 0 where nothing speaks for the class.
        way: how they were made.
    """

    values: Float[Tensor, "b h w"]
    way: Way


def heatmaps(
    backbone: Backbone,
    pixels: UInt8[Tensor, "b 3 size size"],
    directions: Float[Tensor, "b embed_dim"],
    way: Way | None = None,
) -> Heatmaps:
    """Return where in the images the evidence in these directions of feature space is.

    Args:
        backbone: frozen.
        pixels: the images, at least one.
        directions: such as a class embedding less another's: what speaks for the one, against the
            other.
        way: by default what suits the tower: Grad-CAM for convolutions, attention for open_clip's
            ViT, occlusion for any other.
    """
    if way in {None, "attention"} and (blocks := attention_blocks(backbone.vision)):
        return Heatmaps(attention_maps(backbone, blocks, pixels, directions), "attention")
    if way in {None, "grad-cam"} and (stage := last_stage(backbone, pixels)):
        return Heatmaps(grad_cam(backbone, stage, pixels, directions), "grad-cam")
    return Heatmaps(occlusion(backbone, pixels, directions), "occlusion")


def class_direction(
    embeddings: Float[Tensor, "n_classes embed_dim"], taken: int, right: int | None = None
) -> Float[Tensor, " embed_dim"]:
    """Return what speaks for the class `taken`, against `right` or the mean of all others."""
    if right is not None:
        return embeddings[taken] - embeddings[right]
    others = torch.arange(len(embeddings)) != taken
    return embeddings[taken] - embeddings[others].mean(dim=0)
