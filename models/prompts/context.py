"""A unified context that may be shorter than the phrase it starts from.

MaPLe learns two tokens and starts from "a photo of a": "a photo" is learnt, "of a" stays.
"""

from collections.abc import Sequence

import torch

from models.backbone import Backbone
from models.prompts.coop import CoOp
from models.recipe import Recipe


def unified_context(
    backbone: Backbone,
    prompt_names: Sequence[str],
    n_ctx: int,
    phrase: str | None,
    generator: torch.Generator,
) -> CoOp:
    """Return one context for all classes, right after start-of-text.

    The first `n_ctx` tokens of the phrase are its start; the words after them stay before the class
    name, unchanged.

    Raises:
        BadName: see `CoOp`.
        BadRecipe: see `CoOp`.
    """
    learnt, fixed = _split(backbone, phrase or "", n_ctx)
    recipe = Recipe(n_ctx=n_ctx, class_specific=False, ctx_init=learnt or None)
    names = [f"{fixed} {name}" if fixed else name for name in prompt_names]
    return CoOp(backbone, names, recipe, generator)


def renamed_context(
    coop: CoOp, backbone: Backbone, prompt_names: Sequence[str], phrase: str | None
) -> CoOp:
    """Return the context as it is now, around other class names."""
    n_ctx = coop.ctx.shape[0]
    other = unified_context(backbone, prompt_names, n_ctx, phrase, torch.Generator())
    with torch.no_grad():
        other.ctx.copy_(coop.ctx)
    return other


def _split(backbone: Backbone, phrase: str, n_ctx: int) -> tuple[str, str]:
    """Return the longest run of first words that has at most `n_ctx` tokens, and the others."""
    words = phrase.split()
    heads = [" ".join(words[:count]) for count in range(1, len(words) + 1)]
    # Start- and end-of-text stand around each.
    lengths = backbone.tokenize(heads).argmax(dim=-1) - 1 if heads else torch.zeros(0)
    count = int((lengths <= n_ctx).sum())
    return " ".join(words[:count]), " ".join(words[count:])
