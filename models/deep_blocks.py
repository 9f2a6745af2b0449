"""The blocks of open_clip's transformer, with prompt tokens put in between them."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def run_blocks(
    transformer: nn.Module,
    hidden: Float[Tensor, "b length width"],
    layers: Sequence[Tensor],
    start: int,
    attn_mask: Float[Tensor, "length length"] | None = None,
) -> Float[Tensor, "b length width"]:
    """Run all blocks; block `i` reads `layers[i]` at the positions from `start` on.

    What block `i - 1` wrote there is dropped. From block `len(layers)` on nothing is replaced any
    more. `layers[0]` has to be in place already: each tower puts it there in its own way.

    Args:
        transformer: open_clip's, with the batch first.
        hidden: what the first block reads.
        layers: prompt tokens of each block, each `(n_ctx, width)`.
        start: the position of the first prompt token.
        attn_mask: added to the attention scores.
    """
    blocks: Any = transformer.resblocks
    for index, block in enumerate(blocks):
        if 0 < index < len(layers):
            hidden = replace(hidden, layers[index], start)
        hidden = block(hidden, attn_mask=attn_mask)
    return hidden


def replace(
    hidden: Float[Tensor, "b length width"], prompt: Float[Tensor, "n_ctx width"], start: int
) -> Float[Tensor, "b length width"]:
    """Put the prompt tokens in the place of what stands from position `start` on."""
    tokens = prompt.to(hidden.dtype).expand(hidden.shape[0], -1, -1)
    after = start + prompt.shape[0]
    return torch.cat([hidden[:, :start], tokens, hidden[:, after:]], dim=1)
