"""Deep prompts: tokens of its own for each of the first layers of both towers."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.prompts.context import renamed_context, unified_context
from models.prompts.initial import normal_tokens


class DeepPrompts(nn.Module, ABC):
    """The text tower's tokens; what the image tower's are is left open.

    The first layer's are a unified context, `coop`; those of the layers after it, `deeper`, start
    as noise.

    Args:
        backbone: frozen.
        prompt_names: of the classes.
        n_ctx: tokens of the text tower.
        phrase: before the class name, see `unified_context`.
        depth: how many layers of the text tower have prompts.
        generator: draws what starts as noise.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt_names: Sequence[str],
        n_ctx: int,
        phrase: str | None,
        depth: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self._phrase = phrase
        self.coop = unified_context(backbone, prompt_names, n_ctx, phrase, generator)
        width = backbone.text.width
        self.deeper = nn.ParameterList(
            normal_tokens(n_ctx, width, generator=generator) for _ in range(depth - 1)
        )

    def text_layers(self) -> list[Tensor]:
        """Return the text tower's tokens of each prompted layer, `(n_ctx, width)`."""
        return [self.coop.ctx, *self.deeper]

    @abstractmethod
    def vision_layers(self) -> list[Tensor]:
        """Return the image tower's tokens of each prompted layer, `(n_ctx, width)`."""

    def renamed(self, backbone: Backbone, prompt_names: Sequence[str]) -> "DeepPrompts":
        """Return the same prompts around other class names."""
        other = copy.deepcopy(self)
        other.coop = renamed_context(self.coop, backbone, prompt_names, self._phrase)
        return other
