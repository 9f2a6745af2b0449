"""The text blocks as training runs them: open_clip's results up to rounding, from less work.

- After the last block only the end-of-text position is read, so that block computes no other. In
  the starter that is a quarter of the work.
- `nn.MultiheadAttention` projects a transposed view of its input. Where the weights are frozen,
  PyTorch then multiplies one matrix per position instead of one for all, at half the speed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from models.deep_blocks import replace

Mask = Float[Tensor, "#b #heads #asked length"] | None


def has_plain_blocks(transformer: nn.Module) -> bool:
    """Say whether all blocks are open_clip's plain ones, which `run_to_eot` knows."""
    blocks: Any = transformer.resblocks
    return all(type(block) is ResidualAttentionBlock for block in blocks)


def run_to_eot(
    transformer: nn.Module,
    hidden: Float[Tensor, "b length width"],
    eot: Int[Tensor, " b"],
    layers: Sequence[Tensor],
    attn_mask: Float[Tensor, "length length"] | None,
) -> Float[Tensor, "b width"]:
    """Return what the last block writes at the end-of-text positions.

    The arguments are those of `models.deep_blocks.run_blocks`, with prompts after start-of-text.
    """
    blocks: Any = transformer.resblocks
    mask = None if attn_mask is None else attn_mask[None, None]
    for index, block in enumerate(blocks[:-1]):
        if 0 < index < len(layers):
            hidden = replace(hidden, layers[index], start=1)
        seen = block.ln_1(hidden)
        hidden = _block(block, hidden, seen, seen, mask)
    if 1 < len(blocks) <= len(layers):
        hidden = replace(hidden, layers[len(blocks) - 1], start=1)
    seen, rows = blocks[-1].ln_1(hidden), torch.arange(len(eot), device=eot.device)
    ends, asked = hidden[rows, eot].unsqueeze(1), seen[rows, eot].unsqueeze(1)
    ends_mask = None if attn_mask is None else attn_mask[eot][:, None, None]
    return _block(blocks[-1], ends, asked, seen, ends_mask).squeeze(1)


def _block(
    block: Any,
    hidden: Float[Tensor, "b asked width"],
    asked: Float[Tensor, "b asked width"],
    seen: Float[Tensor, "b length width"],
    mask: Mask,
) -> Float[Tensor, "b asked width"]:
    hidden = hidden + block.ls_1(_attend(block.attn, asked, seen, mask))
    return hidden + block.ls_2(block.mlp(block.ln_2(hidden)))


def _attend(
    attn: nn.MultiheadAttention,
    asked: Float[Tensor, "b asked width"],
    seen: Float[Tensor, "b length width"],
    mask: Mask,
) -> Float[Tensor, "b asked width"]:
    width, weight, bias = attn.embed_dim, attn.in_proj_weight, attn.in_proj_bias
    queries = linear(asked, weight[:width], bias[:width])
    keys, values = linear(seen, weight[width:], bias[width:]).chunk(2, dim=-1)
    q, k, v = (
        x.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for x in (queries, keys, values)
    )
    read = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return attn.out_proj(read.transpose(1, 2).flatten(2))
