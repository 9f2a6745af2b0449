"""CoCoOp: a context that a small net shifts for each image."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.prompts.context import renamed_context, unified_context
from models.prompts.initial import linear
from models.text_encoder import Prompts

# Prompts that the text tower reads at once; there is one for each pair of image and class.
TEXT_BATCH = 512


class ConditionalPrompts(nn.Module):
    """`ctx_j(v) = ctx_j + h(v)` for every context token j and an image feature v.

    The meta-net is `h(v) = W_2·relu(W_1·v + b_1) + b_2`, with `embed_dim / 16` hidden units.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt_names: Sequence[str],
        n_ctx: int,
        phrase: str | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._phrase = phrase
        self.coop = unified_context(backbone, prompt_names, n_ctx, phrase, generator)
        hidden = max(1, backbone.embed_dim // 16)
        self.meta_net = nn.Sequential(
            linear(backbone.embed_dim, hidden, generator),
            nn.ReLU(),
            linear(hidden, backbone.text.width, generator),
        )
        self.to(backbone.device)

    def text_features(
        self, backbone: Backbone, images: Float[Tensor, "b embed_dim"]
    ) -> Float[Tensor, "b n_classes embed_dim"]:
        """Return the L2-normalised text features of all classes for each image feature."""
        prompts = self.coop()
        at_once = max(1, TEXT_BATCH // prompts.embeddings.shape[0])
        return torch.cat([self._chunk(backbone, prompts, v) for v in images.split(at_once)])

    def renamed(self, backbone: Backbone, prompt_names: Sequence[str]) -> "ConditionalPrompts":
        """Return the same context and meta-net around other class names."""
        other = copy.deepcopy(self)
        other.coop = renamed_context(self.coop, backbone, prompt_names, self._phrase)
        return other

    def _chunk(
        self, backbone: Backbone, prompts: Prompts, images: Float[Tensor, "b embed_dim"]
    ) -> Float[Tensor, "b n_classes embed_dim"]:
        shift = self.meta_net(images)[:, None, None, :]
        length = prompts.embeddings.shape[1]
        position = torch.arange(length, device=shift.device).view(1, 1, length, 1)
        # The context stands right after start-of-text.
        is_ctx = (position >= 1) & (position <= self.coop.ctx.shape[0])
        shifted = prompts.embeddings + shift * is_ctx
        flat = Prompts(shifted.flatten(0, 1), prompts.eot.repeat(len(images)))
        return normalize(backbone.text(flat), dim=-1).unflatten(0, (len(images), -1))
