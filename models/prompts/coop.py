"""CoOp: context tokens learned in place of a hand-written phrase.

Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022 (KaiyangZhou/CoOp).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from models.backbone import Backbone
from models.errors import BadName, BadRecipe
from models.prompts.initial import normal_tokens
from models.recipe import Recipe
from models.text_encoder import Prompts


class CoOp(nn.Module):
    """Places the context tokens `ctx` around each class name.

    The sequence is start-of-text, context and class name in the order that the recipe says, a full
    stop, end-of-text. `ctx` is `(n_ctx, width)`, or `(n_classes, n_ctx, width)` when
    class-specific.

    Raises:
        BadName: a class name that does not fit into the tower's positions, or ends the prompt.
        BadRecipe: an initial phrase of more tokens than the recipe has context, or one that ends
            the prompt.
    """

    fixed: Float[Tensor, "n_classes length width"]
    order: Int[Tensor, "n_classes positions"]
    eot: Int[Tensor, " n_classes"]

    def __init__(
        self,
        backbone: Backbone,
        prompt_names: Sequence[str],
        recipe: Recipe,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        tokens = backbone.tokenize([f"{name}." for name in prompt_names])
        _check_names(prompt_names, tokens)
        lengths = tokens.argmax(dim=-1) + 1  # with start- and end-of-text
        tokens = tokens[:, : int(lengths.max()) + 1]  # one padding token is enough
        _check_lengths(prompt_names, lengths, recipe.n_ctx, backbone.text.context_length)
        eot = lengths + recipe.n_ctx - 1
        order = _order(lengths, recipe, tokens.shape[1], backbone.text.positions(eot))
        device = backbone.device
        with torch.no_grad():
            fixed = backbone.text.token_embedding(tokens.to(device))
            ctx = _initial_ctx(backbone, recipe, generator, len(prompt_names))
        self.ctx = nn.Parameter(ctx)
        self.register_buffer("fixed", fixed, persistent=False)
        self.register_buffer("order", order.to(device), persistent=False)
        self.register_buffer("eot", eot.to(device), persistent=False)

    def forward(self) -> Prompts:
        """Return one prompt per class, `(n_classes, length, width)`."""
        n_classes, _, width = self.fixed.shape
        ctx = self.ctx.expand(n_classes, -1, -1)
        source = torch.cat([self.fixed, ctx], dim=1)
        index = self.order.unsqueeze(-1).expand(-1, -1, width)
        return Prompts(source.gather(1, index), self.eot)


def _initial_ctx(
    backbone: Backbone, recipe: Recipe, generator: torch.Generator, n_classes: int
) -> Float[Tensor, "*n_classes n_ctx width"]:
    """Embed the initial phrase; the tokens that it does not fill start as noise of CoOp's 0.02."""
    shape: tuple[int, ...] = (recipe.n_ctx, backbone.text.width)
    if recipe.class_specific:
        shape = (n_classes, *shape)
    ctx = normal_tokens(*shape, generator=generator).to(backbone.device)
    if recipe.ctx_init:
        tokens = backbone.tokenize([recipe.ctx_init])
        if _is_cut(tokens[0]):
            raise BadRecipe(
                f"ctx_init {recipe.ctx_init!r} holds the name of a special token.",
                fix=_PLAIN_WORDS,
                field="ctx_init",
            )
        n_words = int(tokens.argmax(dim=-1)) - 1
        if n_words > recipe.n_ctx:
            raise BadRecipe(
                f"ctx_init {recipe.ctx_init!r} has {n_words} tokens, n_ctx is {recipe.n_ctx}.",
                fix=f"Shorten the phrase, or set n_ctx to {n_words}.",
                field="ctx_init",
            )
        words = backbone.text.token_embedding(tokens.to(backbone.device))[0, 1 : 1 + n_words]
        ctx[..., recipe.n_ctx - n_words :, :] = words
    return ctx


def _order(
    lengths: Int[Tensor, " n"], recipe: Recipe, n_tokens: int, positions: int
) -> Int[Tensor, "n {positions}"]:
    """Say for each position which of `n_tokens` class tokens, then context tokens, stands there."""
    ctx = list(range(n_tokens, n_tokens + recipe.n_ctx))
    half = recipe.n_ctx // 2
    rows = []
    for length in lengths.tolist():
        name, stop, end = list(range(1, length - 2)), length - 2, length - 1
        middle = {
            "end": ctx + name,
            "middle": ctx[:half] + name + ctx[half:],
            "front": name + ctx,
        }[recipe.class_token_position]
        row = [0, *middle, stop, end]
        padding = min(length, n_tokens - 1)
        rows.append(row + [padding] * (positions - len(row)))
    return torch.tensor(rows)


# Names of tokens, which the tokenizer would read as the tokens themselves.
_PLAIN_WORDS = "Write plain words, without <start_of_text> and <end_of_text>."


def _check_names(prompt_names: Sequence[str], tokens: Int[Tensor, "n length"]) -> None:
    for name, row in zip(prompt_names, tokens, strict=True):
        if _is_cut(row):
            raise BadName(
                f"The prompt name {name!r} holds the name of a special token.",
                fix=_PLAIN_WORDS,
                field="prompt_name",
            )


def _is_cut(tokens: Int[Tensor, " length"]) -> bool:
    """Say whether start- or end-of-text, the highest two ids, stand within a text too."""
    end = tokens.max()
    return int((tokens >= end - 1).sum()) > 2


def _check_lengths(
    prompt_names: Sequence[str], lengths: Int[Tensor, " n"], n_ctx: int, context_length: int
) -> None:
    longest = int(lengths.argmax())
    needed = int(lengths[longest]) + n_ctx
    if needed > context_length:
        raise BadName(
            f"The prompt name {prompt_names[longest]!r} and {n_ctx} context tokens need {needed}"
            f" positions; the text tower has {context_length}.",
            fix="Shorten the prompt name, or lower n_ctx.",
            field="prompt_name",
        )
