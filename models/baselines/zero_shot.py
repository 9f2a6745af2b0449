"""Zero-shot: the backbone's own text features of a hand-written prompt (Radford et al. 2021)."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from models.backbone import Backbone

TEMPLATE = "a photo of a {}."


def zero_shot(
    backbone: Backbone, prompt_names: Sequence[str], template: str = TEMPLATE
) -> Float[Tensor, "n_classes embed_dim"]:
    """Return the L2-normalised class embeddings of `template` filled with each name."""
    return backbone.encode_texts([template.format(name) for name in prompt_names])
