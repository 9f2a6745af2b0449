"""CoOp: which token stands at which position, and what the context starts from."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.errors import BadName, BadRecipe
from models.prompts.coop import CoOp
from models.recipe import Recipe

NAMES = ["cat", "deep scratch"]


def learner(backbone: Backbone, names: list[str], *, seed: int = 0, **values: Any) -> CoOp:
    recipe = Recipe(**({"ctx_init": None} | values))
    return CoOp(backbone, names, recipe, torch.Generator().manual_seed(seed))


def embeddings(backbone: Backbone, *ids: int) -> Tensor:
    return backbone.text.token_embedding(torch.tensor(ids))


def words(backbone: Backbone, text: str) -> list[int]:
    """Return the token ids of a text, without start, end and padding."""
    tokens = backbone.tokenize([text])[0].tolist()
    return tokens[1 : tokens.index(49407)]


def features(backbone: Backbone, prompts: CoOp) -> Tensor:
    with torch.no_grad():
        return normalize(backbone.text(prompts()), dim=-1)


@pytest.mark.parametrize("n_ctx", [1, 4, 16])
def test_shapes_of_a_unified_and_of_class_specific_contexts(backbone: Backbone, n_ctx: int) -> None:
    unified = learner(backbone, NAMES, n_ctx=n_ctx, class_specific=False)
    specific = learner(backbone, NAMES, n_ctx=n_ctx, class_specific=True)

    assert unified.ctx.shape == (n_ctx, 32)
    assert specific.ctx.shape == (2, n_ctx, 32)
    assert unified().embeddings.shape == specific().embeddings.shape
    assert [name for name, _ in unified.named_parameters()] == ["ctx"]
    assert list(unified.state_dict()) == ["ctx"]


@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize(
    ("position", "expected"),
    [("end", "CCCN"), ("middle", "CNCC"), ("front", "NCCC")],
)
def test_every_token_stands_at_its_position(
    backbone: Backbone, position: str, expected: str, class_specific: bool
) -> None:
    coop = learner(
        backbone,
        NAMES,
        n_ctx=3,
        class_token_position=position,
        class_specific=class_specific,
    )
    with torch.no_grad():
        coop.ctx += torch.randn(coop.ctx.shape, generator=torch.Generator().manual_seed(1))
    prompts = coop()

    for index, name in enumerate(NAMES):
        ctx = (coop.ctx[index] if class_specific else coop.ctx).split(1)
        pieces = {"C": list(ctx), "N": [embeddings(backbone, *words(backbone, name))]}
        stop, end = words(backbone, ".")[0], 49407
        row = [embeddings(backbone, 49406), *(pieces[letter].pop(0) for letter in expected)]
        wanted = torch.cat([*row, embeddings(backbone, stop, end)])
        assert int(prompts.eot[index]) == len(wanted) - 1
        assert torch.equal(prompts.embeddings[index, : len(wanted)], wanted)


def test_a_single_context_token_in_the_middle_follows_the_name(backbone: Backbone) -> None:
    middle, front = (
        learner(backbone, NAMES, n_ctx=1, class_token_position=where)
        for where in ("middle", "front")
    )

    assert torch.equal(middle().embeddings, front().embeddings)


@pytest.mark.parametrize("class_specific", [False, True])
def test_a_phrase_gives_the_features_of_the_hand_written_prompt(
    backbone: Backbone, class_specific: bool
) -> None:
    names = ["cat", "deep scratch", "surface crack"]
    coop = learner(backbone, names, ctx_init="a photo of a", class_specific=class_specific)

    written = backbone.encode_texts([f"a photo of a {name}." for name in names])
    assert torch.equal(features(backbone, coop), written)


def test_a_phrase_shorter_than_the_context_stands_next_to_the_name(backbone: Backbone) -> None:
    coop = learner(backbone, NAMES, n_ctx=6, ctx_init="a photo", class_specific=False)
    random = learner(backbone, NAMES, n_ctx=6, class_specific=False)

    assert torch.equal(coop.ctx[4:], embeddings(backbone, *words(backbone, "a photo")))
    assert torch.equal(coop.ctx[:4], random.ctx[:4])


def test_a_random_context_is_its_generators(backbone: Backbone) -> None:
    first, again, other = (
        learner(backbone, NAMES, seed=seed, n_ctx=16, class_specific=False).ctx
        for seed in (0, 0, 1)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.std().item() == pytest.approx(0.02, rel=0.2)


def test_no_class_has_a_part_in_another(backbone: Backbone) -> None:
    coop = learner(backbone, NAMES, class_specific=True)

    backbone.text(coop())[0].sum().backward()
    assert coop.ctx.grad is not None
    assert coop.ctx.grad[0].abs().sum() > 0
    assert coop.ctx.grad[1].abs().sum() == 0


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_the_longest_name_that_fits(backbone: Backbone, position: str) -> None:
    # Start, 4 context tokens, the name, a full stop and the end fill 77 positions.
    name = " ".join("x" * 70)
    coop = learner(backbone, ["cat", name], n_ctx=4, class_token_position=position)

    assert coop().eot.tolist() == [7, 76]
    assert features(backbone, coop).isfinite().all()


@pytest.mark.parametrize("length", [71, 72, 200])
def test_a_name_that_does_not_fit_is_named(backbone: Backbone, length: int) -> None:
    name = " ".join("x" * length)

    with pytest.raises(BadName, match=name) as caught:
        learner(backbone, ["cat", name], n_ctx=4)
    assert "77" in caught.value.problem
    assert caught.value.field == "prompt_name"


def test_a_phrase_that_does_not_fit_the_context_is_refused(backbone: Backbone) -> None:
    with pytest.raises(BadRecipe, match="'a photo of a' has 4 tokens, n_ctx is 3") as caught:
        learner(backbone, NAMES, n_ctx=3, ctx_init="a photo of a")
    assert "set n_ctx to 4" in caught.value.fix


@pytest.mark.parametrize("name", ["🔥", "表面のきず", "é", "{}", "\u200b", "a [b] c"])
def test_a_name_of_any_script_is_read_whole(backbone: Backbone, name: str) -> None:
    coop = learner(backbone, ["cat", name], class_specific=False)

    ids = words(backbone, f"{name}.")
    start = 1 + len(coop.ctx)
    assert torch.equal(
        coop().embeddings[1, start : start + len(ids) + 1], embeddings(backbone, *ids, 49407)
    )
    cat, other = features(backbone, coop)
    assert float(cat @ other) < 0.999


@pytest.mark.parametrize(
    "text", ["a<end_of_text>b", "<START_OF_TEXT>", "a &lt;end_of_text&gt;", "<end_of_text>"]
)
def test_a_text_that_would_end_the_prompt_is_named(backbone: Backbone, text: str) -> None:
    with pytest.raises(
        BadName, match=r"prompt name .* holds the name of a special token"
    ) as caught:
        learner(backbone, ["cat", text])
    assert repr(text) in caught.value.problem
    with pytest.raises(BadRecipe, match=r"ctx_init .* holds the name of a special token"):
        learner(backbone, NAMES, ctx_init=text)


def test_classes_of_their_own_start_from_noise_of_their_own(backbone: Backbone) -> None:
    recipe = Recipe(ctx_init=None, class_specific=True, n_ctx=2)
    coop = CoOp(backbone, ["cat", "dog"], recipe, torch.Generator().manual_seed(0))

    assert not torch.equal(coop.ctx[0], coop.ctx[1])
    assert coop.ctx.detach().std().item() == pytest.approx(0.02, rel=0.2)
