"""The image tower driven with prompt tokens: open_clip's own where there are none."""

from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from models.backbone import Backbone
from models.errors import BadRecipe
from models.vision_encoder import VisionEncoder
from tests.unit.models.conftest import build_clip
from tests.unit.models.deep_towers import deep_backbone, drawn_data

PIXELS = drawn_data(per_class=2).pixels


def pixels() -> Tensor:
    assert PIXELS is not None
    return PIXELS(torch.arange(6))


def backbone_of(clip: torch.nn.Module) -> Backbone:
    return Backbone(clip, open_clip.SimpleTokenizer(), source="other", device="cpu")


def tokens(n_ctx: int, seed: int = 0) -> Tensor:
    return torch.randn(n_ctx, 32, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize(
    "vision",
    [
        {},
        {"layers": 3},
        {"no_ln_pre": True},
        {"final_ln_after_pool": True},
        {"pos_embed_type": "sin_cos_2d"},
        {"patch_dropout": 0.5},
        {"ls_init_value": 0.5},
        {"qk_norm": True},
    ],
)
@pytest.mark.parametrize("custom_text", [False, True])
def test_without_prompts_it_is_open_clips(vision: dict[str, Any], custom_text: bool) -> None:
    clip = build_clip(vision=vision, custom_text=custom_text)
    backbone = backbone_of(clip)
    images = backbone.normalised(pixels())

    driven = VisionEncoder(backbone, "IVLP")(images)
    torch.testing.assert_close(driven, clip.encode_image(images), rtol=0, atol=1e-5)


@torch.no_grad()
def test_each_block_reads_its_own_prompts_after_the_patches() -> None:
    backbone = deep_backbone()
    encoder, images = VisionEncoder(backbone, "IVLP"), backbone.normalised(pixels())
    layers, seen = [tokens(2, 1), tokens(2, 2)], []
    hooks = [
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for block in encoder.transformer.resblocks
    ]
    encoder(images, layers)
    encoder(images)
    for hook in hooks:
        hook.remove()

    # A class token and 2 x 2 patches, then 2 prompts. The first prompts pass ln_pre; the third
    # block has none of its own and reads what the second wrote.
    prompted, plain = seen[:3], seen[3:]
    assert [hidden.shape[1] for hidden in seen] == [7, 7, 7, 5, 5, 5]
    assert torch.equal(prompted[0][:, :5], plain[0])
    torch.testing.assert_close(prompted[0][0, 5:], encoder.ln_pre(layers[0]))
    assert torch.equal(prompted[1][:, 5:], layers[1].expand(6, -1, -1))
    written = encoder.transformer.resblocks[1](prompted[1])
    assert torch.equal(prompted[2], written)


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_deep_prompt_changes_nothing_before_its_layer(depth: int) -> None:
    backbone = deep_backbone()
    encoder, images = VisionEncoder(backbone, "IVLP"), backbone.normalised(pixels())
    wrote: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, __, output: wrote.append(output))
        for block in encoder.transformer.resblocks
    ]
    layers = [tokens(2, seed) for seed in range(depth)]
    encoder(images, layers)
    encoder(images, [*layers[:-1], tokens(2, 9)])
    for hook in hooks:
        hook.remove()

    same = [torch.equal(one, other) for one, other in zip(wrote[:3], wrote[3:], strict=True)]
    assert same == [True] * (depth - 1) + [False] * (4 - depth)


@torch.no_grad()
def test_the_precision_of_the_backbone_is_that_of_the_prompted_tower() -> None:
    clip = build_clip(vision={"layers": 3})
    half = Backbone(
        clip, open_clip.SimpleTokenizer(), source="half", device="cpu", precision="bf16"
    )
    with half.autocast():
        features = VisionEncoder(half, "IVLP")(half.normalised(pixels()), [tokens(2)] * 2)
    assert features.dtype == torch.bfloat16
    with half.autocast():
        plain = VisionEncoder(half, "IVLP")(half.normalised(pixels()))
    torch.testing.assert_close(
        torch.nn.functional.normalize(plain.float(), dim=-1), half.encode_images(pixels())
    )


@pytest.mark.parametrize(
    ("vision", "reason"),
    [
        ({"layers": [1, 1, 1, 1], "width": 16}, "is a ModifiedResNet"),
        ({"attentional_pool": True, "attn_pooler_heads": 4}, "pools by attention"),
        ({"pool_type": "avg"}, "pools by 'avg'"),
    ],
)
def test_a_tower_that_cannot_be_driven_is_named(vision: dict[str, Any], reason: str) -> None:
    backbone = backbone_of(build_clip(vision=vision))

    with pytest.raises(BadRecipe, match=reason) as caught:
        VisionEncoder(backbone, "MaPLe")
    assert caught.value.problem.startswith("MaPLe cannot prompt the backbone 'other': ")
    assert "ViT-B-16" in caught.value.fix
    assert caught.value.field == "method"


def test_a_tower_of_timm_is_named() -> None:
    vision = {"timm_model_name": "test_efficientnet", "timm_pool": "", "timm_proj": "linear"}
    backbone = backbone_of(build_clip(vision=vision))

    with pytest.raises(BadRecipe, match="is a TimmModel, not open_clip's VisionTransformer"):
        VisionEncoder(backbone, "IVLP")


def test_blocks_that_want_the_batch_second_are_refused() -> None:
    clip = build_clip()
    clip.visual.transformer.batch_first = False

    with pytest.raises(BadRecipe, match="blocks are not open_clip's own, with the batch first"):
        VisionEncoder(backbone_of(clip), "IVLP")
