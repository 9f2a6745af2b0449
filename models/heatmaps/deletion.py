"""Whether a map says more than chance: what it calls hot is removed first, against random orders.

Petsiuk, Das, Saenko, "RISE: randomized input sampling for explanation of black-box models", BMVC
2018: the area under the curve of the class's probability while cells are removed. A map that shows
what the model goes by makes it fall soon; a random order is what a map that shows nothing gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from models.backbone import Backbone
from models.decision import class_probabilities
from models.heatmaps.occlusion import blurred

# Cells per side that are removed one by one, blurred, in random orders with these seeds.
_CELLS: Final = 8
SEEDS: Final = (1, 2, 3, 4)
# The shares that are removed when the probability is asked for, closer together where it falls.
_SHARES: Final = (0.0, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)


@dataclass(frozen=True)
class Deletion:
    """Areas under the curve of the probability, from 0 to 1; lower is better.

    Attributes:
        hottest_first: by the map.
        random: by each of the random orders.
    """

    hottest_first: float
    random: tuple[float, ...]


def deletion(
    backbone: Backbone,
    image: UInt8[Tensor, "3 size size"],
    heat: Float[Tensor, "h w"],
    embeddings: Float[Tensor, "n_classes embed_dim"],
    label: int,
    seeds: Sequence[int] = SEEDS,
) -> Deletion:
    """Remove the hottest cells first, and cells in random orders.

    Args:
        backbone: frozen.
        image: its pixels.
        heat: its map.
        embeddings: of the classes.
        label: the class that the map is of.
        seeds: of the random orders.
    """
    cells = adaptive_avg_pool2d(heat[None, None].float(), _CELLS).flatten()
    orders = [cells.argsort(descending=True, stable=True)]
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        orders.append(torch.randperm(len(cells), generator=generator))
    inner = _SHARES[1:-1]
    removed = [
        _removed(image, order[: round(share * len(cells))]) for order in orders for share in inner
    ]
    features = backbone.encode_images(torch.stack([image, blurred(image[None])[0], *removed]))
    probabilities = class_probabilities(features.numpy(), embeddings.numpy(), backbone.logit_scale)[
        :, label
    ]
    whole, nothing = probabilities[:2]
    curves = probabilities[2:].reshape(len(orders), len(inner))
    areas = [float(np.trapezoid([whole, *curve, nothing], _SHARES)) for curve in curves]
    return Deletion(areas[0], tuple(areas[1:]))


def _removed(
    image: UInt8[Tensor, "3 size size"], cells: Int[Tensor, " n"]
) -> UInt8[Tensor, "3 size size"]:
    """Return the image with these cells blurred."""
    mask = torch.zeros(_CELLS * _CELLS)
    mask[cells] = 1
    wide = interpolate(mask.view(1, 1, _CELLS, _CELLS), image.shape[-2:], mode="nearest")[0] > 0
    return torch.where(wide, blurred(image[None])[0], image)
