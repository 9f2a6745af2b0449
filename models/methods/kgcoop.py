"""KgCoOp: prompts that may not leave the hand-written ones.

Yao et al., "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023
(htyao89/KgCoOp).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.baselines.zero_shot import zero_shot

WEIGHT = 8.0  # as published


class KgCoOp:
    """Adds `8 * (1 - mean_c cos(t_c, t0_c))`, with `t0` the hand-written prompts.

    Args:
        backbone: encodes the hand-written prompts.
        prompt_names: of the classes.
        guidance: factor on the weight; a huge one leaves zero-shot.
    """

    def __init__(self, backbone: Backbone, prompt_names: Sequence[str], guidance: float) -> None:
        self._written = zero_shot(backbone, prompt_names).to(backbone.device)
        self._weight = WEIGHT * guidance

    def term(
        self, text: Float[Tensor, "n_classes embed_dim"], features: Float[Tensor, "b embed_dim"]
    ) -> Float[Tensor, ""]:
        """Return the weighted distance from the hand-written prompts."""
        del features
        cosines = (normalize(text, dim=-1) * self._written).sum(dim=-1)
        return self._weight * (1 - cosines.mean())

    def backward(self, loss: Float[Tensor, ""], term: Float[Tensor, ""], ctx: nn.Parameter) -> None:
        """Descend on the sum."""
        ctx.grad = torch.autograd.grad(loss + term, ctx)[0]
