"""The text tower driven with embeddings: open_clip's own results, from fewer positions."""

import itertools

import open_clip
import pytest
import torch

from models import text_encoder
from models.errors import BackboneUnavailable
from models.text_encoder import Prompts, TextEncoder
from tests.unit.models.conftest import build_clip
from tests.unit.models.matrices import random_matrix

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


@pytest.mark.parametrize(("gradients", "length"), [(False, 16), (True, 3)])
def test_positions_that_the_cut_leaves_out_are_not_run(gradients: bool, length: int) -> None:
    encoder, lengths = TextEncoder(build_clip()), []
    for block in encoder.transformer.resblocks:
        block.ln_1.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))

    with torch.set_grad_enabled(gradients):
        encoder(encoder.embed(tokenize(["a"])))
    assert lengths == [length, length]


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


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_deep_prompts_stand_after_start_of_text_from_their_layer_on(causal: bool) -> None:
    encoder = TextEncoder(build_clip(causal=causal, layers=3))
    prompts = encoder.embed(tokenize(TEXTS[:3]))
    drawn = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 2, encoder.width, generator=drawn)
    seen: list[torch.Tensor] = []
    for block in encoder.transformer.resblocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    # What the first block reads is in place already: of one layer, nothing is left to do.
    assert torch.equal(encoder(prompts, layers=[first]), encoder(prompts))
    seen.clear()
    deep = encoder(prompts, layers=[first, second])
    assert not torch.equal(deep, encoder(prompts))

    deep_reads, plain_reads = seen[:3], seen[3:]
    assert torch.equal(deep_reads[0], plain_reads[0])
    assert torch.equal(deep_reads[1][:, 1:3], second.expand(3, -1, -1))
    for kept in (slice(0, 1), slice(3, None)):
        assert torch.equal(deep_reads[1][:, kept], plain_reads[1][:, kept])
    assert torch.equal(
        deep_reads[2],
        encoder.transformer.resblocks[1](deep_reads[1], attn_mask=mask_of(encoder, deep_reads[1])),
    )


def mask_of(encoder: TextEncoder, hidden: torch.Tensor) -> torch.Tensor | None:
    length = hidden.shape[1]
    return None if encoder.attn_mask is None else encoder.attn_mask[:length, :length]


@torch.no_grad()
def test_deep_prompts_leave_the_cut_run_the_full_run() -> None:
    encoder = TextEncoder(build_clip(layers=3))
    prompts = encoder.embed(tokenize(TEXTS))
    layers = list(torch.randn(3, 2, encoder.width, generator=torch.Generator().manual_seed(0)))

    short = encoder.embed(tokenize(TEXTS[:3]))
    assert torch.equal(encoder(short, layers=layers), encoder(short, cut=False, layers=layers))
    assert torch.equal(encoder(prompts, layers=layers), encoder(prompts, cut=False, layers=layers))


def features_and_gradients(encoder: TextEncoder) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the features of `TEXTS`, and the gradients of embeddings and deep prompts."""
    embeddings, eot = encoder.embed(tokenize(TEXTS))
    embeddings = embeddings.detach().requires_grad_()
    layers = list(random_matrix(4, encoder.width).to(embeddings).split(2))
    features = encoder(Prompts(embeddings, eot), layers=[x.requires_grad_() for x in layers])
    loss = (features * random_matrix(*features.shape, seed=1)).sum()
    found = torch.autograd.grad(loss, [embeddings, layers[1]], materialize_grads=True)
    return features.detach(), list(found)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("causal", [True, False])
def test_training_has_the_features_and_gradients_of_open_clips_blocks(
    monkeypatch: pytest.MonkeyPatch, causal: bool, n_layers: int
) -> None:
    encoder = TextEncoder(build_clip(causal=causal, layers=n_layers, ls_init_value=0.5).double())
    trained = features_and_gradients(encoder)
    monkeypatch.setattr(encoder, "_plain", False)
    torch.testing.assert_close(trained, features_and_gradients(encoder))


def test_training_on_the_cut_run_is_training_on_the_full_run(clip: torch.nn.Module) -> None:
    encoder = TextEncoder(clip.double())
    embeddings, eot = encoder.embed(tokenize(TEXTS[:3]))
    embeddings = embeddings.detach().requires_grad_()
    cut, full = (encoder(Prompts(embeddings, eot), cut=cut) for cut in (True, False))

    torch.testing.assert_close(cut, full)
    gradients = [torch.autograd.grad(run.square().sum(), embeddings) for run in (cut, full)]
    torch.testing.assert_close(*gradients)


def test_training_runs_the_last_block_at_end_of_text_alone() -> None:
    encoder, positions = TextEncoder(build_clip()), []
    for block in encoder.transformer.resblocks:
        block.mlp.register_forward_hook(lambda _, inputs, __: positions.append(inputs[0].shape[1]))

    encoder(encoder.embed(tokenize(["a"])))
    assert positions == [3, 1]


def test_blocks_of_another_kind_train_as_they_are() -> None:
    encoder = TextEncoder(build_clip(custom_text=True, block_type="custom"))
    tokens = tokenize(TEXTS[:3])

    with torch.no_grad():
        expected = encoder(encoder.embed(tokens))
    torch.testing.assert_close(encoder(encoder.embed(tokens)), expected)


@pytest.mark.parametrize("chunk", [1, 2, 4, 5])
def test_chunks_of_prompts_give_the_features_and_gradients_of_the_whole(
    clip: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    encoder = TextEncoder(clip.requires_grad_(False).double())
    features, gradients = features_and_gradients(encoder)
    monkeypatch.setattr(text_encoder, "CHUNK", chunk)
    chunked, chunked_gradients = features_and_gradients(encoder)

    torch.testing.assert_close(chunked, features)
    torch.testing.assert_close(chunked_gradients, gradients)


@torch.no_grad()
def test_chunks_of_prompts_without_gradients(
    clip: torch.nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder(clip)
    prompts = encoder.embed(tokenize(TEXTS))
    whole = encoder(prompts)
    monkeypatch.setattr(text_encoder, "CHUNK", 4)

    torch.testing.assert_close(encoder(prompts), whole)


def test_a_chunk_is_run_again_when_its_gradient_is_due_and_one_that_is_all_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder, runs = TextEncoder(build_clip().requires_grad_(False)), []
    encoder.ln_final.register_forward_hook(lambda _, inputs, __: runs.append(len(inputs[0])))

    monkeypatch.setattr(text_encoder, "CHUNK", 6)
    features_and_gradients(encoder)
    assert runs == [6]

    runs.clear()
    monkeypatch.setattr(text_encoder, "CHUNK", 4)
    features_and_gradients(encoder)
    assert runs[:2] == [4, 2]
    assert sorted(runs[2:]) == [2, 4]
