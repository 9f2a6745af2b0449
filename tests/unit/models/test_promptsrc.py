"""PromptSRC: what holds the prompts back, and their average over the epochs."""

import math
from typing import Any

import open_clip
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from models.methods.deep import DeepClassifier, Step
from models.methods.ivlp import IVLP, IVLPRecipe
from models.methods.promptsrc import (
    N_TEMPLATES,
    PromptAverage,
    PromptSRC,
    PromptSRCRecipe,
    SelfConsistency,
    frozen_text_features,
    gaussian_weights,
)
from tests.unit.models.deep_towers import NAMES, asked, deep_backbone, drawn_data

ALONE = {"text_weight": 0.0, "image_weight": 0.0, "logit_weight": 0.0}


def fit(**values: Any) -> DeepClassifier:
    recipe = PromptSRCRecipe(**({"epochs": 2, "threads": 1} | values))
    return PromptSRC(recipe).fit(deep_backbone(), drawn_data(), 0)


def test_gaussian_weights_by_hand() -> None:
    # Distances 2, 1 and 0 from the mean, of one standard deviation.
    parts = [math.exp(-2), math.exp(-0.5), 1.0]
    weights = gaussian_weights(3, 3.0, 1.0)
    assert weights.tolist() == pytest.approx([part / sum(parts) for part in parts])


@pytest.mark.parametrize("epochs", [1, 3, 20, 50])
def test_gaussian_weights_are_of_sum_1_and_highest_next_to_the_mean(epochs: int) -> None:
    weights = gaussian_weights(epochs, 15.0, 1.0)
    assert float(weights.sum()) == pytest.approx(1)
    assert int(weights.argmax()) + 1 == min(epochs, 15)


@torch.no_grad()
def test_the_average_of_prompts_by_hand() -> None:
    layer = nn.Linear(1, 2, bias=False)
    average = PromptAverage(layer, torch.tensor([0.25, 0.75]))
    for epoch, row in enumerate([[1.0, -4.0], [5.0, 8.0]], start=1):
        layer.weight.copy_(torch.tensor(row)[:, None])
        average.add(epoch, 0.0)

    average.apply()
    assert layer.weight.tolist() == [[4.0], [5.0]]


def test_the_60_templates_are_the_references() -> None:
    filled = [t("{}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES[:N_TEMPLATES]]
    assert "a photo of a {}." in filled
    assert (filled[0], filled[-1]) == ("a bad photo of a {}.", "itap of the {}.")


@torch.no_grad()
def test_frozen_texts_are_averaged_before_they_are_normalised() -> None:
    backbone = deep_backbone()
    raw = []
    for template in open_clip.OPENAI_IMAGENET_TEMPLATES[:N_TEMPLATES]:
        tokens = backbone.tokenize([template("scratch")])
        raw.append(backbone.text(backbone.text.embed(tokens))[0])
    expected = normalize(torch.stack(raw).mean(dim=0), dim=0)
    torch.testing.assert_close(frozen_text_features(backbone, NAMES)[1], expected)


def test_each_constraint_by_hand() -> None:
    backbone, data = deep_backbone(), drawn_data()
    batch = torch.tensor([5, 0])
    text0, image0 = frozen_text_features(backbone, NAMES), data.features[batch]
    text, image = text0 + 0.5, image0 - 0.25
    logits = torch.zeros(2, 3)
    step = Step(batch, text, image, logits)
    p0 = torch.softmax(backbone.logit_scale * image0 @ text0.T, dim=1)

    def term(**values: float) -> float:
        return float(SelfConsistency(backbone, data, PromptSRCRecipe(**(ALONE | values)))(step))

    assert term() == 0
    assert term(text_weight=25.0) == pytest.approx(12.5)
    assert term(image_weight=10.0) == pytest.approx(2.5)
    # KL(p0 ‖ uniform) = log 3 + Σ p0·log p0, summed over 2 images, over 2 x 3 entries.
    divergence = (math.log(3) + (p0 * p0.log()).sum(dim=1)).sum() / 6
    assert term(logit_weight=2.0) == pytest.approx(float(2 * divergence), rel=1e-4)


def test_the_frozen_backbone_pays_nothing() -> None:
    backbone, data = deep_backbone(), drawn_data()
    text, batch = frozen_text_features(backbone, NAMES), torch.arange(12)
    logits = backbone.logit_scale * data.features @ text.T
    term = SelfConsistency(backbone, data, PromptSRCRecipe())
    assert float(term(Step(batch, text, data.features, logits))) == pytest.approx(0, abs=1e-6)


def test_with_nothing_to_hold_it_and_one_epoch_it_is_ivlp() -> None:
    once = {"epochs": 1, "warmup_epochs": 0, "lr": 0.05, "threads": 1}
    recipe = IVLPRecipe(n_ctx=4, n_ctx_vision=4, depth_text=9, depth_vision=9, **once)
    ivlp = IVLP(recipe).fit(deep_backbone(), drawn_data(), 0)
    ours = fit(**once, **ALONE)

    assert torch.equal(ours.text_features, ivlp.text_features)
    images = asked(drawn_data())
    assert torch.equal(ours.image_features(images), ivlp.image_features(images))


def test_heavy_weights_bring_it_back_to_the_frozen_features() -> None:
    data, frozen = drawn_data(), frozen_text_features(deep_backbone(), NAMES)

    def distances(**values: float) -> tuple[float, float]:
        recipe = {"epochs": 12, "lr": 0.01, "batch_size": 12, "momentum": 0.0, "gpa_mean": 12.0}
        classifier = fit(**recipe, **values)
        text = (classifier.text_features - frozen).abs().mean()
        image = (classifier.image_features(asked(data)) - data.features).abs().mean()
        return float(text), float(image)

    free = distances(**ALONE)
    held = distances(text_weight=1000.0, image_weight=1000.0)
    assert held[0] < 0.7 * free[0]
    assert held[1] < 0.7 * free[1]


def test_what_is_served_is_the_average_of_the_epochs() -> None:
    # All weight on the first of two epochs, on the second, and half of it on each.
    first, last, both = (
        list(fit(warmup_epochs=0, lr=0.05, gpa_mean=mean, gpa_std=std)._prompts.parameters())
        for mean, std in ((1.0, 0.01), (2.0, 0.01), (1.5, 1.0))
    )
    for one, two, average in zip(first, last, both, strict=True):
        assert not torch.allclose(one, two, rtol=0, atol=1e-6)
        torch.testing.assert_close(average, (one + two) / 2)
