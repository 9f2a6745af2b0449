"""Grad-CAM on the last feature map of a convolutional tower.

Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
localization", ICCV 2017.
"""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from models.backbone import Backbone
from models.heatmaps.tower import hooked, leaf, scores, unit_range


@torch.no_grad()
def last_stage(backbone: Backbone, pixels: UInt8[Tensor, "b 3 size size"]) -> nn.Module | None:
    """Return the module that gives the last feature map; `None` where the tower has none.

    A tower that goes on with sequences of tokens after its last map, as a ViT does after it has cut
    the image into patches, has none: its maps hold no evidence.
    """
    found: list[nn.Module | None] = [None]

    def watch(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            height, width = output.shape[2:]
            if height == width > 1:
                found[0] = module
        elif isinstance(output, Tensor) and output.ndim == 3:
            found[0] = None

    with hooked(list(backbone.vision.modules()), watch):
        backbone.image(pixels[:1].to(backbone.device))
    return None if found[0] is backbone.vision else found[0]


def grad_cam(
    backbone: Backbone,
    stage: nn.Module,
    pixels: UInt8[Tensor, "b 3 size size"],
    directions: Float[Tensor, "b embed_dim"],
) -> Float[Tensor, "b h w"]:
    """Return the maps, from 0 to 1: channels weighted by their mean gradient, the positive part.

    Args:
        backbone: a convolutional tower.
        stage: what gives the feature map, see `last_stage`.
        pixels: the images.
        directions: in feature space, what the evidence is for.
    """
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        kept.append(leaf(output))
        return kept[-1]

    with torch.enable_grad(), hooked([stage], keep):
        total = scores(backbone, pixels, directions).sum()
        (gradient,) = torch.autograd.grad(total, kept[-1])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return unit_range((weights * kept[-1]).sum(dim=1))
