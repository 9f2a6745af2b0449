"""The text tower driven with embeddings: open_clip's own results, from fewer positions."""

import itertools

import open_clip
import pytest
import torch

from models.errors import BackboneUnavailable
from models.text_encoder import Prompts, TextEncoder
from tests.unit.models.conftest import build_clip

TOWERS = list(itertools.product([False, True], [False, True]))
# End-of-text tokens at positions 2 to 76.
TEXTS = ["a", "a photo of a scratch.", "きず", "🔥 fire", " ".join("x" * 30), " ".join("x" * 90)]

tokenize = open_clip.SimpleTokenizer()


@pytest.fixture(params=TOWERS, ids=lambda p: f"custom={p[0]} causal={p[1]}")
def clip(request: pytest.FixtureRequest) -> torch.nn.Module:
    custom_text, causal = request.param
    return build_clip(custom_text=custom_text, causal=causal)


@torch.no_grad()
@pytest.mark.parametrize("texts", [*([text] for text in TEXTS), TEXTS, TEXTS[:3]])
def test_the_cut_run_is_the_full_run_and_open_clips(
    clip: torch.nn.Module, texts: list[str]
) -> None:
    encoder, tokens = TextEncoder(clip), tokenize(texts)
    prompts = encoder.embed(tokens)

    cut, full = encoder(prompts), encoder(prompts, cut=False)

    assert torch.equal(cut, full)
    assert torch.equal(full, clip.encode_text(tokens))


@torch.no_grad()
def test_nothing_after_the_end_of_text_matters_under_a_causal_mask() -> None:
    encoder = TextEncoder(build_clip())
    prompts = encoder.embed(tokenize(TEXTS[:3]))
    noise = prompts.embeddings.clone()
    for row, eot in enumerate(prompts.eot.tolist()):
        noise[row, eot + 1 :] = torch.randn(76 - eot, encoder.width)

    assert torch.equal(encoder(Prompts(noise, prompts.eot)), encoder(prompts))


@torch.no_grad()
def test_what_follows_matters_to_a_bidirectional_tower() -> None:
    encoder = TextEncoder(build_clip(causal=False))
    prompts = encoder.embed(tokenize(["a"]))
    noise = prompts.embeddings.clone()
    noise[:, -1] = torch.randn(encoder.width)

    assert not torch.allclose(encoder(Prompts(noise, prompts.eot)), encoder(prompts))


@pytest.mark.parametrize(
    ("eot", "positions"), [([2], 16), ([3, 15], 16), ([16], 32), ([40], 48), ([64], 77), ([76], 77)]
)
def test_the_cut_is_at_a_block_of_16_that_holds_every_end_of_text(
    eot: list[int], positions: int
) -> None:
    causal, bidirectional = (TextEncoder(build_clip(causal=causal)) for causal in (True, False))

    assert causal.causal
    assert causal.positions(torch.tensor(eot)) == positions
    assert not bidirectional.causal
    assert bidirectional.positions(torch.tensor(eot)) == 77


def test_positions_that_the_cut_leaves_out_are_not_run() -> None:
    encoder, lengths = TextEncoder(build_clip()), []
    encoder.ln_final.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))

    encoder(encoder.embed(tokenize(["a"])))
    assert lengths == [16]


@torch.no_grad()
@pytest.mark.parametrize("text", [{"proj_bias": True}, {"proj_type": "none"}])
def test_projections_of_every_kind(text: dict[str, object]) -> None:
    clip = build_clip(custom_text=True, **text)
    encoder, tokens = TextEncoder(clip), tokenize(TEXTS[:3])

    assert torch.equal(encoder(encoder.embed(tokens)), clip.encode_text(tokens))


def test_width_and_context_length_are_the_towers() -> None:
    encoder = TextEncoder(build_clip())

    assert (encoder.width, encoder.context_length) == (32, 77)


class ForeignText(torch.nn.Module):
    """Stands for open_clip's wrapper around a Hugging Face text tower."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = torch.nn.Identity()
        self.pooler = torch.nn.Identity()


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("pool_type", ["first", "last"])
def test_a_tower_that_pools_elsewhere_is_refused(custom_text: bool, pool_type: str) -> None:
    with pytest.raises(BackboneUnavailable, match=f"pools by '{pool_type}'") as caught:
        TextEncoder(build_clip(custom_text=custom_text, pool_type=pool_type))
    assert caught.value.field == "backbone"
    assert "ViT-B-32" in caught.value.fix


def test_a_tower_with_a_class_token_is_refused() -> None:
    with pytest.raises(BackboneUnavailable, match="masks by token ids"):
        TextEncoder(build_clip(custom_text=True, embed_cls=True))


def test_a_tower_that_masks_padding_is_refused() -> None:
    clip = build_clip(custom_text=True, causal=False)
    clip.text.use_pad_mask = True

    with pytest.raises(BackboneUnavailable, match="masks by token ids"):
        TextEncoder(clip)


def test_a_tower_of_another_make_is_refused() -> None:
    clip = build_clip(custom_text=True)
    clip.text = ForeignText()

    with pytest.raises(BackboneUnavailable, match="not open_clip's own transformer"):
        TextEncoder(clip)
