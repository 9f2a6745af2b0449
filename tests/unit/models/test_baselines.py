"""Baselines on features that can be judged by eye."""

import pytest
import torch

from models.backbone import Backbone
from models.baselines.linear_probe import linear_probe
from models.baselines.nearest_class_mean import nearest_class_mean
from models.baselines.zero_shot import zero_shot

FEATURES = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
LABELS = torch.tensor([0, 0, 1, 1])


def test_nearest_class_mean_by_hand() -> None:
    means = nearest_class_mean(FEATURES, LABELS, 2)

    # (1.8, 0.6) and (-0.6, 1.8), both of length 0.6·√10.
    root = 10**0.5
    torch.testing.assert_close(means, torch.tensor([[3 / root, 1 / root], [-1 / root, 3 / root]]))


def test_zero_shot_is_the_hand_written_prompt(backbone: Backbone) -> None:
    names = ["cat", "deep scratch"]

    written = backbone.encode_texts(["a photo of a cat.", "a photo of a deep scratch."])
    assert torch.equal(zero_shot(backbone, names), written)
    other = zero_shot(backbone, names, "a blurry {}")
    assert torch.equal(other, backbone.encode_texts(["a blurry cat", "a blurry deep scratch"]))


def test_a_linear_probe_tells_separate_classes_apart() -> None:
    probabilities = linear_probe(FEATURES, LABELS, torch.tensor([[0.9, 0.1], [-0.3, 0.9]]))

    assert probabilities.argmax(dim=1).tolist() == [0, 1]
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones_like(probabilities[:, 0]))
    assert probabilities.shape == (2, 2)


def test_a_stronger_regularisation_is_less_certain() -> None:
    weak, strong = (linear_probe(FEATURES, LABELS, FEATURES, c=c) for c in (100.0, 0.01))

    assert weak.max() > strong.max()
    assert strong.max().item() == pytest.approx(0.5, abs=0.05)


def test_a_balanced_probe_hears_the_small_class() -> None:
    features = torch.cat([FEATURES[:1]] * 20 + [FEATURES[2:3]])
    labels = torch.tensor([0] * 20 + [1])
    between = torch.tensor([[0.6, 0.8]])

    plain = linear_probe(features, labels, between, c=1.0)
    balanced = linear_probe(features, labels, between, c=1.0, class_weight="balanced")
    assert plain.argmax() == 0
    assert balanced.argmax() == 1
