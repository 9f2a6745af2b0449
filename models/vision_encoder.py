"""The image tower, driven with prompt tokens among its patches."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from open_clip.transformer import Transformer, VisionTransformer
from torch import Tensor, nn

from models.backbone import Backbone
from models.deep_blocks import run_blocks
from models.errors import BadRecipe


class VisionEncoder(nn.Module):
    """The VisionTransformer of a CLIP of open_clip, run on images and prompt tokens.

    Patch dropout is off, as wherever a frozen tower is asked for features.

    Args:
        backbone: frozen.
        method: the name of the method that wants to prompt it, for the error.

    Raises:
        BadRecipe: a tower that is no VisionTransformer, or that pools otherwise than by its class
            token.
    """

    def __init__(self, backbone: Backbone, method: str) -> None:
        super().__init__()
        tower: Any = backbone.vision
        _check_tower(tower, method, backbone.source)
        self.conv1: nn.Module = tower.conv1
        self.class_embedding: nn.Parameter = tower.class_embedding
        self.positional_embedding: nn.Parameter = tower.positional_embedding
        self.ln_pre: nn.Module = tower.ln_pre
        self.transformer: nn.Module = tower.transformer
        self.ln_post: nn.Module = tower.ln_post
        self.proj: nn.Parameter | None = tower.proj

    @property
    def width(self) -> int:
        """The width of a token."""
        return self.class_embedding.shape[0]

    @property
    def n_layers(self) -> int:
        """How many blocks there are to prompt."""
        blocks: Any = self.transformer.resblocks
        return len(blocks)

    def forward(
        self, images: Float[Tensor, "b 3 size size"], layers: Sequence[Tensor] = ()
    ) -> Float[Tensor, "b embed_dim"]:
        """Return the image features, not normalised, `(b, embed_dim)`.

        Args:
            images: normalised pixels.
            layers: prompt tokens of each block, which stand after the patches, see `run_blocks`;
                without them the features are those of `encode_image`.
        """
        hidden = self._embed(images)
        start = hidden.shape[1]
        if layers:
            tokens = layers[0].to(hidden.dtype).expand(hidden.shape[0], -1, -1)
            hidden = torch.cat([hidden, tokens], dim=1)
        # As in the reference, the first prompts go through ln_pre with the patches.
        hidden = run_blocks(self.transformer, self.ln_pre(hidden), layers, start)
        pooled = self.ln_post(hidden[:, 0])
        return pooled if self.proj is None else pooled @ self.proj

    def _embed(self, images: Float[Tensor, "b 3 size size"]) -> Float[Tensor, "b length width"]:
        """Return class token and patches with their positions."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        hidden = torch.cat([first, patches], dim=1)
        return hidden + self.positional_embedding.to(hidden.dtype)


def _check_tower(tower: nn.Module, method: str, source: str) -> None:
    transformer = getattr(tower, "transformer", None)
    if not isinstance(tower, VisionTransformer):
        reason = f"its image tower is a {type(tower).__name__}, not open_clip's VisionTransformer"
    elif tower.attn_pool is not None:
        reason = "its image tower pools by attention, not at the class token"
    elif tower.pool_type != "tok":
        reason = f"its image tower pools by {tower.pool_type!r}, not at the class token"
    elif not isinstance(transformer, Transformer) or not transformer.batch_first:
        reason = "its image tower's blocks are not open_clip's own, with the batch first"
    else:
        return
    raise BadRecipe(
        f"{method} cannot prompt the backbone {source!r}: {reason}.",
        fix="Use a ViT such as ViT-B-16, or a method that tunes the text side alone.",
        field="method",
    )
