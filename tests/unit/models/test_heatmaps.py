"""Heat maps: they find what a tower goes by, and a check by deletion says whether they do."""

import math
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.heatmaps import deletion, heatmaps
from models.heatmaps.attention import attention_blocks
from models.heatmaps.choose import Way, class_direction
from models.heatmaps.gradcam import last_stage
from models.heatmaps.occlusion import blurred, occlusion
from tests.unit.models.conftest import PIXELS, build_clip

SIDE = 64
SPOT = (slice(8, 24), slice(40, 56))  # rows, columns of the planted blob


class Redness(nn.Module):
    """A small CNN whose features say how much red and how much else there is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 2, 3, stride=2, padding=1)
        with torch.no_grad():
            for conv in (self.first, self.second):
                conv.weight.zero_()
                conv.bias.zero_()
            self.first.weight[0, :, 1, 1] = torch.tensor([1.0, -0.5, -0.5])  # red, not white
            self.first.weight[1, :, 1, 1] = 0.2
            self.second.weight[0, 0] = self.second.weight[1, 1] = 1 / 9

    def forward(self, images: Tensor) -> Tensor:
        maps = self.second(self.first(images).relu()).relu()
        pooled = maps.mean(dim=(2, 3))
        return torch.cat([pooled, torch.full_like(pooled, 0.05)], dim=1)


def with_tower(tower: nn.Module) -> Backbone:
    """Return a backbone whose features are those of a tower of four dimensions."""
    clip: Any = build_clip()
    clip.visual = tower
    open_clip.model.set_model_preprocess_cfg(clip, PIXELS | {"size": SIDE})
    return Backbone(clip, open_clip.SimpleTokenizer(), source="drawn", device="cpu")


@pytest.fixture(scope="module")
def cnn() -> Backbone:
    return with_tower(Redness())


@pytest.fixture(scope="module")
def vit() -> Backbone:
    vision = {"image_size": SIDE, "patch_size": 8, "layers": 2}
    clip = build_clip(vision=vision)
    open_clip.model.set_model_preprocess_cfg(clip, PIXELS | {"size": SIDE})
    return Backbone(clip, open_clip.SimpleTokenizer(), source="vit", device="cpu")


@pytest.fixture(scope="module")
def blob() -> Tensor:
    """A grey image with a red blob."""
    image = torch.full((3, SIDE, SIDE), 128, dtype=torch.uint8)
    image[:, *SPOT] = torch.tensor([255, 20, 20], dtype=torch.uint8)[:, None, None]
    return image


RED = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])


@pytest.mark.parametrize("way", [None, "occlusion"])
def test_the_planted_blob_is_found_and_deletion_agrees(
    cnn: Backbone, blob: Tensor, way: Way | None
) -> None:
    found = heatmaps(cnn, blob[None], class_direction(RED, 0)[None], way)
    assert found.way == (way or "grad-cam")
    heat = found.values[0]
    assert (float(heat.min()), float(heat.max())) == (0, 1)
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    cell = SIDE / len(heat)
    assert SPOT[0].start <= (row + 0.5) * cell <= SPOT[0].stop
    assert SPOT[1].start <= (column + 0.5) * cell <= SPOT[1].stop
    checked = deletion(cnn, blob, heat, RED, 0)
    assert len(checked.random) == 4
    assert checked.hottest_first < min(checked.random)
    backwards = deletion(cnn, blob, 1 - heat, RED, 0)
    assert backwards.hottest_first > max(backwards.random)


def test_occlusion_by_hand_on_a_linear_tower() -> None:
    """The score is the red of one pixel's neighbourhood: only windows over it lose any."""

    class Linear(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            red = images[:, 0, 4, 4] + 10  # never negative
            return torch.stack([red, torch.full_like(red, 10)] * 2, dim=1)

    tower = with_tower(Linear())
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    image[0, :8, :8] = 255
    heat = occlusion(tower, image[None], torch.tensor([[1.0, 0, 0, 0]]))[0]
    # 64 pixels in 16 steps of 4: pixel (4, 4) is in the cell (1, 1), which four windows cover.
    # The cell (1, 1) loses in all of its windows; (0, 0), (0, 1) and (1, 0) lie at the edge and are
    # covered only together with it, or half of the time; beyond (2, 2) nothing is lost.
    expected = torch.zeros(16, 16)
    for row in range(16):
        for column in range(16):
            windows = [
                (top, left)
                for top in (row - 1, row)
                for left in (column - 1, column)
                if 0 <= top <= 14 and 0 <= left <= 14
            ]
            hit = [(top, left) for top, left in windows if top in {0, 1} and left in {0, 1}]
            expected[row, column] = len(hit) / len(windows)
    assert expected[1, 1] == 1
    assert expected[3, 3] == 0
    assert torch.allclose(heat, expected, atol=1e-4)
    assert torch.equal(heat > 0, expected > 0)


def test_attention_of_a_vit_is_that_of_its_own_blocks(vit: Backbone, blob: Tensor) -> None:
    blocks = attention_blocks(vit.vision)
    assert blocks is not None
    assert len(blocks) == 2
    embeddings = torch.eye(2, 16)
    found = heatmaps(vit, blob[None].repeat(2, 1, 1, 1), embeddings)
    assert found.way == "attention"
    assert found.values.shape == (2, 8, 8)
    assert float(found.values.amax()) == 1
    assert math.isfinite(deletion(vit, blob, found.values[0], embeddings, 0).hottest_first)
    assert last_stage(vit, blob[None]) is None


def test_reading_attention_changes_no_feature(vit: Backbone, blob: Tensor) -> None:
    before = vit.encode_images(blob[None])
    heatmaps(vit, blob[None], torch.eye(1, 16))
    assert torch.equal(vit.encode_images(blob[None]), before)


def test_a_map_of_no_evidence_is_zero(cnn: Backbone) -> None:
    grey = torch.full((1, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    assert not heatmaps(cnn, grey, torch.zeros(1, 4)).values.any()


def test_a_tower_that_nobody_can_look_into_is_covered(blob: Tensor) -> None:
    class Closed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([images.mean(dim=(2, 3)) + 3, torch.ones(len(images), 1)], dim=1)

    tower = with_tower(Closed())
    assert heatmaps(tower, blob[None], torch.eye(1, 4)).way == "occlusion"


def test_directions() -> None:
    embeddings = torch.tensor([[1.0, 0], [0, 1], [0, 3]])
    assert class_direction(embeddings, 0, 1).tolist() == [1, -1]
    assert class_direction(embeddings, 0).tolist() == [1, -2]


def test_what_covers_keeps_the_light(blob: Tensor) -> None:
    covered = blurred(blob[None])[0]
    assert abs(float(covered.float().mean() - blob.float().mean())) < 3
    assert int(covered[0, *SPOT].max()) < 255
