"""What context, deep prompts and projections start from, and what is learnt of them."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.prompts.cocoop import ConditionalPrompts
from models.prompts.context import renamed_context, unified_context
from models.prompts.coop import CoOp
from models.prompts.ivlp import IndependentPrompts, TokenGrid
from models.prompts.maple import CoupledPrompts
from models.recipe import Recipe
from tests.unit.models.deep_towers import NAMES, deep_backbone

PHRASE = "a photo of a"


@pytest.fixture
def backbone() -> Backbone:
    return deep_backbone()


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeddings(backbone: Backbone, text: str) -> Tensor:
    tokens = backbone.tokenize([text])
    return backbone.text.token_embedding(tokens)[0, 1 : int(tokens.argmax())]


def ivlp(backbone: Backbone, seed: int = 0) -> IndependentPrompts:
    text, vision = TokenGrid(2, 3), TokenGrid(5, 2)
    return IndependentPrompts(backbone, NAMES, PHRASE, text, vision, 32, drawn(seed))


def maple(backbone: Backbone, depth: int = 3) -> CoupledPrompts:
    return CoupledPrompts(backbone, NAMES, 2, PHRASE, depth, 24, drawn())


def cocoop(backbone: Backbone) -> ConditionalPrompts:
    return ConditionalPrompts(backbone, NAMES, 4, PHRASE, drawn())


@torch.no_grad()
@pytest.mark.parametrize("n_ctx", [1, 2, 3, 4])
def test_a_context_shorter_than_its_phrase_leaves_the_rest_in_place(
    backbone: Backbone, n_ctx: int
) -> None:
    coop = unified_context(backbone, NAMES, n_ctx, PHRASE, drawn())

    assert torch.equal(coop.ctx, embeddings(backbone, PHRASE)[:n_ctx])
    written = backbone.encode_texts([f"a photo of a {name}." for name in NAMES])
    assert torch.equal(normalize(backbone.text(coop()), dim=-1), written)


def test_a_context_longer_than_its_phrase_starts_with_noise(backbone: Backbone) -> None:
    coop = unified_context(backbone, NAMES, 6, PHRASE, drawn())

    assert torch.equal(coop.ctx[2:], embeddings(backbone, PHRASE))
    assert 0 < coop.ctx[:2].std().item() < 0.04


def test_a_word_of_more_tokens_than_the_context_stays(backbone: Backbone) -> None:
    n_tokens = len(embeddings(backbone, "xqzvw"))
    assert n_tokens > 2
    coop = unified_context(backbone, ["cat"], 2, "a xqzvw of", drawn())

    # One token of noise, "a" is learnt, "xqzvw of" is not.
    assert torch.equal(coop.ctx[1:], embeddings(backbone, "a"))
    assert torch.equal(
        coop().embeddings[0, 3:][: n_tokens + 2], embeddings(backbone, "xqzvw of cat")
    )


def test_without_a_phrase_the_context_is_coops_noise(backbone: Backbone) -> None:
    ours = unified_context(backbone, NAMES, 4, None, drawn())
    recipe = Recipe(n_ctx=4, class_specific=False, ctx_init=None)

    assert torch.equal(ours.ctx, CoOp(backbone, NAMES, recipe, drawn()).ctx)
    assert torch.equal(ours().embeddings, CoOp(backbone, NAMES, recipe, drawn())().embeddings)


@torch.no_grad()
def test_a_context_goes_with_other_names(backbone: Backbone) -> None:
    coop = unified_context(backbone, NAMES, 2, PHRASE, drawn())
    coop.ctx += 1
    other = renamed_context(coop, backbone, ["deep dent"], PHRASE)

    assert torch.equal(other.ctx, coop.ctx)
    assert other.ctx.data_ptr() != coop.ctx.data_ptr()
    assert torch.equal(other().embeddings[0, 1:3], coop.ctx)
    expected = embeddings(backbone, "of a deep dent.")
    assert torch.equal(other().embeddings[0, 3 : 3 + len(expected)], expected)


def test_independent_prompts_of_both_towers(backbone: Backbone) -> None:
    prompts = ivlp(backbone)

    assert [tuple(layer.shape) for layer in prompts.text_layers()] == [(2, 32)] * 3
    assert [tuple(layer.shape) for layer in prompts.vision_layers()] == [(5, 32)] * 2
    assert prompts.text_layers()[0] is prompts.coop.ctx
    noise = torch.cat([*prompts.text_layers()[1:], *prompts.vision_layers()])
    assert noise.std().item() == pytest.approx(0.02, rel=0.2)
    assert len({id(parameter) for parameter in prompts.parameters()}) == 5
    again, other = ivlp(backbone), ivlp(backbone, seed=1)
    assert torch.equal(again.vision_layers()[1], prompts.vision_layers()[1])
    assert not torch.equal(other.vision_layers()[1], prompts.vision_layers()[1])


@torch.no_grad()
def test_maples_image_prompts_are_projections_of_its_text_prompts(backbone: Backbone) -> None:
    prompts = maple(backbone)

    for projection, text, vision in zip(
        prompts.projections, prompts.text_layers(), prompts.vision_layers(), strict=True
    ):
        assert vision.shape == (2, 24)
        torch.testing.assert_close(vision, text @ projection.weight.T + projection.bias)
    first, second, third = prompts.projections
    assert torch.equal(second.weight, third.weight)
    assert not torch.equal(first.weight, second.weight)
    # Torch's own start: uniform within 1/√32.
    assert 0.9 < float(first.weight.abs().max()) * 32**0.5 <= 1


def test_maples_gradient_reaches_the_text_prompts_through_the_image_prompts(
    backbone: Backbone,
) -> None:
    prompts = maple(backbone)
    prompts.vision_layers()[1].sum().backward()

    assert prompts.deeper[0].grad is not None
    assert prompts.projections[1].weight.grad is not None
    assert prompts.coop.ctx.grad is None
    assert prompts.projections[2].weight.grad is None


def test_shallow_prompts_are_a_context_and_one_projection(backbone: Backbone) -> None:
    prompts = maple(backbone, depth=1)

    assert len(prompts.text_layers()) == len(prompts.vision_layers()) == 1
    assert {name for name, _ in prompts.named_parameters()} == {
        "coop.ctx",
        "projections.0.weight",
        "projections.0.bias",
    }


@torch.no_grad()
@pytest.mark.parametrize("make", [ivlp, maple])
def test_deep_prompts_go_with_other_names(backbone: Backbone, make: object) -> None:
    prompts = ivlp(backbone) if make is ivlp else maple(backbone)
    other = prompts.renamed(backbone, ["dent", "crack"])

    assert other.coop().embeddings.shape[0] == 2
    for kind in ("text_layers", "vision_layers"):
        pairs = zip(getattr(prompts, kind)(), getattr(other, kind)(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    prompts.deeper[0] += 1
    assert not torch.equal(prompts.deeper[0], other.deeper[0])


@torch.no_grad()
def test_a_meta_net_of_zeros_leaves_coop(backbone: Backbone) -> None:
    prompts, images = cocoop(backbone), normalize(torch.randn(5, 16, generator=drawn(1)), dim=1)
    for parameter in prompts.meta_net.parameters():
        parameter.zero_()
    recipe = Recipe(n_ctx=4, class_specific=False, ctx_init=PHRASE)
    coop = CoOp(backbone, NAMES, recipe, drawn())

    plain = normalize(backbone.text(coop()), dim=-1)
    torch.testing.assert_close(
        prompts.text_features(backbone, images), plain.expand(5, -1, -1), rtol=0, atol=1e-6
    )


@torch.no_grad()
def test_the_meta_net_shifts_every_context_token_alike(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.prompts.cocoop.TEXT_BATCH", 7)  # two images of three classes
    prompts, images = cocoop(backbone), normalize(torch.randn(5, 16, generator=drawn(1)), dim=1)
    w1, b1, w2, b2 = prompts.meta_net.parameters()
    b1 += 1  # the one hidden unit must not be dead
    together = prompts.text_features(backbone, images)

    assert (w1.shape, w2.shape) == ((1, 16), (32, 1))
    for image, text in zip(images, together, strict=True):
        shifted = renamed_context(prompts.coop, backbone, NAMES, PHRASE)
        shifted.ctx += w2 @ (w1 @ image + b1).relu() + b2
        alone = normalize(backbone.text(shifted()), dim=-1)
        torch.testing.assert_close(text, alone, rtol=0, atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=1e-6)


def test_nothing_is_drawn_from_the_global_generator(backbone: Backbone) -> None:
    before = torch.get_rng_state()
    ivlp(backbone)
    maple(backbone)
    cocoop(backbone)
    assert torch.equal(torch.get_rng_state(), before)
