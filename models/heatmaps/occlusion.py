"""Occlusion: how much of a score is lost where a window of the image is covered.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. Works for any
tower, since nothing of it is looked into; slower than what looks inside.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from models.backbone import Backbone
from models.heatmaps.tower import unit_range

# Windows per side, each as wide as two steps: an eighth of the image.
_STEPS = 16
_WIDTH = 2
# What covers a window keeps so many blocks per side of the image: light and colour, no texture.
_BLOCKS = 4


def blurred(pixels: UInt8[Tensor, "b 3 size size"]) -> UInt8[Tensor, "b 3 size size"]:
    """Return the images with nothing but their light and colour left, in four blocks per side."""
    means = adaptive_avg_pool2d(pixels.float(), _BLOCKS)
    smooth = interpolate(means, pixels.shape[-2:], mode="bilinear", align_corners=False)
    return smooth.round().to(torch.uint8)


def occlusion(
    backbone: Backbone,
    pixels: UInt8[Tensor, "b 3 size size"],
    directions: Float[Tensor, "b embed_dim"],
) -> Float[Tensor, "b h w"]:
    """Return the maps, from 0 to 1: the mean loss of score over the windows that cover a cell."""
    maps = [
        _lost(backbone, image, direction)
        for image, direction in zip(pixels, directions, strict=True)
    ]
    return unit_range(torch.stack(maps))


def _lost(
    backbone: Backbone, image: UInt8[Tensor, "3 size size"], direction: Float[Tensor, " embed_dim"]
) -> Float[Tensor, "h w"]:
    steps = min(_STEPS, image.shape[-1])
    edges = torch.linspace(0, image.shape[-1], steps + 1).round().long().tolist()
    windows = [
        (top, left) for top in range(steps - _WIDTH + 1) for left in range(steps - _WIDTH + 1)
    ]
    cover = blurred(image[None])[0]
    covered = image.repeat(len(windows) + 1, 1, 1, 1)
    for number, (top, left) in enumerate(windows, start=1):
        rows = slice(edges[top], edges[top + _WIDTH])
        columns = slice(edges[left], edges[left + _WIDTH])
        covered[number, :, rows, columns] = cover[:, rows, columns]
    found = backbone.encode_images(covered) @ direction.cpu()
    lost, times = torch.zeros(steps, steps), torch.zeros(steps, steps)
    for number, (top, left) in enumerate(windows, start=1):
        cells = slice(top, top + _WIDTH), slice(left, left + _WIDTH)
        lost[cells] += found[0] - found[number]
        times[cells] += 1
    return lost / times
