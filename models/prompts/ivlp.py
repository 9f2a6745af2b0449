"""IVLP: deep prompts of both towers that know nothing of each other."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.prompts.deep import DeepPrompts
from models.prompts.initial import normal_tokens


class TokenGrid(NamedTuple):
    """How many prompt tokens each of the first `depth` layers of a tower has."""

    n_ctx: int
    depth: int


class IndependentPrompts(DeepPrompts):
    """Deep prompts of the text tower, see `DeepPrompts`, and as free ones of the image tower."""

    def __init__(
        self,
        backbone: Backbone,
        prompt_names: Sequence[str],
        phrase: str | None,
        text: TokenGrid,
        vision: TokenGrid,
        vision_width: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__(backbone, prompt_names, text.n_ctx, phrase, text.depth, generator)
        self.vision = nn.ParameterList(
            normal_tokens(vision.n_ctx, vision_width, generator=generator)
            for _ in range(vision.depth)
        )
        self.to(backbone.device)

    def vision_layers(self) -> list[Tensor]:
        """Return the tokens as they are."""
        return list(self.vision)
