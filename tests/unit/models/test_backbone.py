"""The frozen CLIP: identified by its weights, and one image's features are its own."""

import math
from typing import Any

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from models.backbone import IMAGE_BATCH, Backbone, PixelSpec, _choose_precision
from models.errors import BackboneUnavailable
from tests.unit.models.conftest import PIXELS, build_clip


def pixels(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)


def wrap(clip: torch.nn.Module, **options: Any) -> Backbone:
    options = {"source": "tiny", "device": "cpu"} | options
    return Backbone(clip, open_clip.SimpleTokenizer(), **options)


def with_preprocessing(**values: object) -> torch.nn.Module:
    clip = build_clip()
    open_clip.model.set_model_preprocess_cfg(clip, PIXELS | values)
    return clip


def test_a_backbone_says_what_it_is(backbone: Backbone) -> None:
    assert backbone.source == "tiny"
    assert backbone.embed_dim == 16
    assert backbone.precision == "fp32"
    assert backbone.device == torch.device("cpu")
    assert backbone.pixels == PixelSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic")
    assert backbone.logit_scale == pytest.approx(1 / 0.07)
    assert backbone.digest.startswith("sha256:")


def test_nothing_of_it_is_trained() -> None:
    clip = build_clip().train()
    wrap(clip)

    assert not any(parameter.requires_grad for parameter in clip.parameters())
    assert not clip.training


@torch.no_grad()
def test_image_features_are_open_clips() -> None:
    clip, images = build_clip(), pixels(3)
    features = wrap(clip).encode_images(images)

    expected = normalize(clip.encode_image((images / 255 - 0.5) / 0.25), dim=-1)
    torch.testing.assert_close(features, expected)


@torch.no_grad()
def test_text_features_are_open_clips() -> None:
    clip, texts = build_clip(), ["a photo of a cat.", "きず 🔥"]
    features = wrap(clip).encode_texts(texts)

    expected = normalize(clip.encode_text(open_clip.SimpleTokenizer()(texts)), dim=-1)
    assert torch.equal(features, expected)


@pytest.mark.parametrize("count", [0, 1, IMAGE_BATCH, IMAGE_BATCH + 1, 2 * IMAGE_BATCH + 3])
def test_any_number_of_images(backbone: Backbone, count: int) -> None:
    assert backbone.encode_images(pixels(count)).shape == (count, 16)


def test_features_do_not_depend_on_company_or_order(backbone: Backbone) -> None:
    images = pixels(IMAGE_BATCH + 4)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    together = backbone.encode_images(images)

    alone = torch.cat([backbone.encode_images(image.unsqueeze(0)) for image in images])
    assert torch.equal(alone, together)
    assert torch.equal(backbone.encode_images(images[order]), together[order])
    assert torch.equal(backbone.encode_images(images[3:9]), together[3:9])


def test_a_batch_of_exactly_the_images_that_wait(backbone: Backbone) -> None:
    images = pixels(3)

    torch.testing.assert_close(backbone.encode_batch(images), backbone.encode_images(images))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_are_near_and_single_at_the_end(
    backbone: Backbone, precision: str
) -> None:
    features = wrap(build_clip(), precision=precision).encode_images(pixels(3))

    assert features.dtype == torch.float32
    assert not torch.equal(features, backbone.encode_images(pixels(3)))
    torch.testing.assert_close(features, backbone.encode_images(pixels(3)), atol=0.03, rtol=0)


def test_the_digest_changes_with_a_single_weight(backbone: Backbone) -> None:
    clip = build_clip()
    assert wrap(clip, source="elsewhere").digest == backbone.digest

    with torch.no_grad():
        clip.visual.proj[0, 0] = math.nextafter(clip.visual.proj[0, 0], 1) + 1e-6
    assert wrap(clip).digest != backbone.digest


@pytest.mark.parametrize(
    "values",
    [
        {"causal": False},
        {"heads": 4},
        {"quick_gelu": True},
        {"act_kwargs": {"approximate": "tanh"}},
        {"norm_kwargs": {"eps": 1e-6}},
        {"vision": {"head_width": 8}},
        {"vision": {"pool_type": "avg"}},
    ],
)
def test_the_digest_changes_with_the_architecture_where_the_weights_do_not(
    backbone: Backbone, values: dict[str, Any]
) -> None:
    clip, usual = build_clip(**values), build_clip()

    weights = usual.state_dict()
    assert clip.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in clip.state_dict().items())
    assert wrap(clip).digest != backbone.digest


@pytest.mark.parametrize(
    "values",
    [{"mean": (0.5, 0.5, 0.4)}, {"std": (0.2, 0.25, 0.25)}, {"interpolation": "bilinear"}],
)
def test_the_digest_changes_with_the_preprocessing(
    backbone: Backbone, values: dict[str, object]
) -> None:
    assert wrap(with_preprocessing(**values)).digest != backbone.digest


def test_two_sides_of_one_length_are_a_square() -> None:
    assert wrap(with_preprocessing(size=(32, 32))).pixels.size == 32


def test_an_oblong_input_is_refused() -> None:
    with pytest.raises(BackboneUnavailable, match=r"expects \(32, 64\) pixels; only square"):
        wrap(with_preprocessing(size=(32, 64)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(BackboneUnavailable, match="'cuda' was asked for") as caught:
        wrap(build_clip(), device="cuda")
    assert caught.value.field == "device"
    assert "--device cpu" in caught.value.fix
    assert wrap(build_clip(), device="auto").device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_gpu_gives_the_features_of_the_cpu(backbone: Backbone) -> None:
    on_gpu = wrap(build_clip(), device="cuda", precision="fp32")

    assert on_gpu.digest == backbone.digest
    images, texts = pixels(20), ["a photo of a cat."]
    torch.testing.assert_close(
        on_gpu.encode_images(images), backbone.encode_images(images), atol=5e-3, rtol=0
    )
    torch.testing.assert_close(
        on_gpu.encode_texts(texts), backbone.encode_texts(texts), atol=5e-3, rtol=0
    )


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp16")])
def test_the_precision_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, supported: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert _choose_precision("auto", torch.device("cuda")) == expected
    assert _choose_precision("fp32", torch.device("cuda")) == "fp32"
