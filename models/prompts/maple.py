"""MaPLe: the image tower's prompts are linear projections of the text tower's."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.prompts.deep import DeepPrompts
from models.prompts.initial import linear


class CoupledPrompts(DeepPrompts):
    """Layer `i` of the image tower reads `F_i(P_i)`, `P_i` the text tower's tokens of layer `i`.

    The projections after the first start out as copies of one, as in the reference.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt_names: Sequence[str],
        n_ctx: int,
        phrase: str | None,
        depth: int,
        vision_width: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(backbone, prompt_names, n_ctx, phrase, depth, generator)
        first, later = (linear(backbone.text.width, vision_width, generator) for _ in range(2))
        self.projections = nn.ModuleList([first, *(copy.deepcopy(later) for _ in self.deeper)])
        self.to(backbone.device)

    def vision_layers(self) -> list[Tensor]:
        """Return the projections of the text tower's tokens, layer by layer."""
        pairs = zip(self.projections, self.text_layers(), strict=True)
        return [projection(tokens) for projection, tokens in pairs]
