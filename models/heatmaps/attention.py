"""Attention weighted by its gradient, through the blocks of a ViT.

Chefer, Gur, Wolf, "Generic attention-model explainability for interpreting bi-modal and
encoder-decoder transformers", ICCV 2021: relevance starts as the identity, and each block adds
`mean_heads((gradient · attention)⁺) · relevance`.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, UInt8
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import linear

from models.backbone import Backbone
from models.heatmaps.tower import hooked, leaf, scores, unit_range


def attention_blocks(tower: nn.Module) -> list[nn.MultiheadAttention] | None:
    """Return the attentions of open_clip's ViT; `None` for another tower or another pooling."""
    if not isinstance(tower, VisionTransformer) or tower.attn_pool is not None:
        return None
    if tower.pool_type not in {"tok", "avg"}:
        return None
    blocks: Any = tower.transformer.resblocks
    found = [getattr(block, "attn", None) for block in blocks]
    if not all(isinstance(one, nn.MultiheadAttention) and one.batch_first for one in found):
        return None
    return [one for one in found if isinstance(one, nn.MultiheadAttention)]


def attention_maps(
    backbone: Backbone,
    blocks: list[nn.MultiheadAttention],
    pixels: UInt8[Tensor, "b 3 size size"],
    directions: Float[Tensor, "b embed_dim"],
) -> Float[Tensor, "b h w"]:
    """Return the maps, from 0 to 1: how much each patch's content reaches what is pooled.

    Args:
        backbone: a ViT.
        blocks: its attentions, see `attention_blocks`.
        pixels: the images.
        directions: in feature space, what the evidence is for.
    """
    tower: Any = backbone.vision
    attentions: list[Tensor] = []

    def attend(module: Any, inputs: Any, _: Any) -> tuple[Tensor, None]:
        output, attention = _attend(module, inputs[0])
        attentions.append(attention)
        return output, None

    def begin(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return leaf(output)

    with torch.enable_grad(), hooked([tower.conv1], begin), hooked(blocks, attend):
        total = scores(backbone, pixels, directions).sum()
        gradients = torch.autograd.grad(total, attentions)
    length = attentions[0].shape[-1]
    relevance = torch.eye(length, device=backbone.device).expand(len(pixels), -1, -1)
    for attention, gradient in zip(attentions, gradients, strict=True):
        flow = (gradient * attention).clamp(min=0).mean(dim=1)
        relevance = relevance + flow @ relevance
    pooled = relevance[:, 0] if tower.pool_type == "tok" else relevance[:, 1:].mean(dim=1)
    side = math.isqrt(length - 1)
    return unit_range(pooled[:, 1:].reshape(len(pixels), side, side))


def _attend(
    module: nn.MultiheadAttention, hidden: Float[Tensor, "b length width"]
) -> tuple[Float[Tensor, "b length width"], Float[Tensor, "b heads length length"]]:
    """Return the module's output on itself, and the attention that it is computed from.

    The weights that the module itself can return are a copy, through which no gradient passes.
    """
    b, length, width = hidden.shape
    projected = linear(hidden, module.in_proj_weight, module.in_proj_bias)
    parts = projected.view(b, length, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind(0)
    attention = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)
    mixed = (attention @ value).transpose(1, 2).reshape(b, length, width)
    output: Tensor = module.out_proj(mixed)
    return output, attention
