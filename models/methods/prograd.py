"""ProGrad: no step against what the backbone knows.

Zhu et al., "Prompt-aligned Gradient for Prompt Tuning", ICCV 2023 (BeierZhu/Prompt-align).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from models.backbone import Backbone
from models.baselines.zero_shot import zero_shot


class ProGrad:
    """Takes from the gradient what would raise the divergence from zero-shot.

    With `g` the gradient of the loss and `h` that of `KL(zero-shot || prompts)` on the batch, at
    temperature 1: where `g·h < 0`, the step follows `g - guidance * (g·h / ‖h‖²) h`. Published:
    guidance 1, which takes the whole opposing part.

    Context tokens that the initial phrase does not fill start from noise; the reference code's from
    zeros.

    Args:
        backbone: gives the zero-shot logits.
        prompt_names: of the classes.
        guidance: share of the opposing part to be taken away; 0 is CoOp.
    """

    def __init__(self, backbone: Backbone, prompt_names: Sequence[str], guidance: float) -> None:
        self._written = zero_shot(backbone, prompt_names).to(backbone.device)
        self._scale, self._guidance = backbone.logit_scale, guidance

    def term(
        self, text: Float[Tensor, "n_classes embed_dim"], features: Float[Tensor, "b embed_dim"]
    ) -> Float[Tensor, ""]:
        """Return the cross-entropy to zero-shot's probabilities: the KL up to a constant."""
        wanted = (self._scale * features @ self._written.T).softmax(dim=-1)
        return cross_entropy(self._scale * features @ normalize(text, dim=-1).T, wanted)

    def backward(self, loss: Float[Tensor, ""], term: Float[Tensor, ""], ctx: nn.Parameter) -> None:
        """Descend on the loss, as far as the guide does not object."""
        step = torch.autograd.grad(loss, ctx, retain_graph=True)[0]
        known = torch.autograd.grad(term, ctx)[0]
        agreement = (step * known).sum()
        if agreement < 0:
            step -= self._guidance * agreement / known.square().sum() * known
        ctx.grad = step
