"""What prompts and projections start from, drawn by a generator instead of the global one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def normal_tokens(*shape: int, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Draw tokens from the normal distribution of CoOp, of standard deviation 0.02."""
    return torch.randn(*shape, generator=generator) * 0.02


def linear(n_in: int, n_out: int, generator: torch.Generator) -> nn.Linear:
    """Return a linear layer as torch starts it: uniform within `1 / sqrt(n_in)` of 0."""
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
    bound = n_in**-0.5
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
