"""The image tower, watched from inside."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from models.backbone import Backbone

Hook = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def hooked(modules: Sequence[nn.Module], hook: Hook) -> Iterator[None]:
    """Call `hook` after each of the modules has run; what it returns, if anything, goes on."""
    handles: list[RemovableHandle] = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def scores(
    backbone: Backbone,
    pixels: UInt8[Tensor, "b 3 size size"],
    directions: Float[Tensor, "b embed_dim"],
) -> Float[Tensor, " b"]:
    """Return how far the images' features point in these directions, in single precision."""
    features = backbone.image(pixels.to(backbone.device))
    return (features * directions.to(features)).sum(dim=1)


def leaf(values: Tensor) -> Tensor:
    """Return the values as the beginning of a graph: what came before needs no gradient."""
    return values.detach().requires_grad_()


def unit_range(maps: Float[Tensor, "b h w"]) -> Float[Tensor, "b h w"]:
    """Return the positive part of each map, its largest value 1; a map of none stays 0."""
    positive = maps.detach().float().clamp(min=0)
    highest = positive.amax(dim=(1, 2), keepdim=True)
    return torch.where(highest > 0, positive / highest.clamp(min=1e-30), 0.0).cpu()
