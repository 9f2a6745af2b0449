"""The loss: cross-entropy with adjusted logits, and the regularisers with their weights."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from models.backbone import Backbone
from models.collapse.metrics import nc2, nc3
from models.collapse.regularizers import class_means
from models.errors import BadRecipe
from models.loss import Loss, LossTerms
from models.prompts.coop import CoOp
from models.recipe import Recipe
from models.training_set import TrainingSet
from tests.unit.models.matrices import random_matrix

NAMES = ["good", "scratch", "stain"]
BALANCED, UNBALANCED = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 0, 0, 0, 1, 2])
ALONE = {"lc_weight": 0.0, "mi_weight": 0.0, "logit_adjustment": 0.0}


def unit(rows: int, seed: int, dim: int = 16) -> Tensor:
    return normalize(random_matrix(rows, dim, seed).float(), dim=1)


FEATURES, TEXT = unit(6, 0), unit(3, 1)


def terms(backbone: Backbone, labels: Tensor, **values: Any) -> LossTerms:
    data = TrainingSet(NAMES, FEATURES, labels)
    return Loss(backbone, data, Recipe(**(ALONE | values)))(TEXT, FEATURES, labels)


def test_without_more_it_is_plain_cross_entropy(backbone: Backbone) -> None:
    plain = cross_entropy(backbone.logit_scale * FEATURES @ TEXT.T, UNBALANCED)

    assert torch.equal(terms(backbone, UNBALANCED).total, plain)
    assert torch.equal(terms(backbone, UNBALANCED).ce, plain)


def test_equal_counts_leave_nothing_to_adjust(backbone: Backbone) -> None:
    adjusted = terms(backbone, BALANCED, logit_adjustment=1.0)

    torch.testing.assert_close(adjusted.ce, terms(backbone, BALANCED).ce)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_the_prior_by_hand(backbone: Backbone, weight: float) -> None:
    # 4, 1 and 1 of 6 images.
    prior = weight * torch.tensor([math.log(4 / 6), math.log(1 / 6), math.log(1 / 6)])
    logits = backbone.logit_scale * FEATURES @ TEXT.T + prior
    expected = -sum(
        math.log(row[label].exp() / row.exp().sum())
        for row, label in zip(logits, UNBALANCED, strict=True)
    )

    adjusted = terms(backbone, UNBALANCED, logit_adjustment=weight)
    assert adjusted.ce.item() == pytest.approx(expected / 6, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_class_without_images_leaves_the_loss_a_number(backbone: Backbone, weight: float) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1])

    absent = terms(backbone, labels, logit_adjustment=weight, mi_weight=1.0)
    assert absent.total.isfinite()
    means = class_means(FEATURES, labels, 3)[:2]
    assert absent.mi.item() == pytest.approx((means - TEXT[:2]).square().sum().item() / 2)


@pytest.mark.parametrize("lc_form", ["gram", "anchored"])
@pytest.mark.parametrize("mi_form", ["point", "gram"])
def test_the_total_is_the_weighted_sum(backbone: Backbone, lc_form: str, mi_form: str) -> None:
    forms = {"lc_form": lc_form, "mi_form": mi_form}
    both = terms(backbone, UNBALANCED, lc_weight=2.0, mi_weight=3.0, **forms)

    assert both.lc > 0
    assert both.mi > 0
    assert both.total.item() == pytest.approx((both.ce + 2 * both.lc + 3 * both.mi).item())


def test_each_form_is_another_loss(backbone: Backbone) -> None:
    grams, others = (
        terms(backbone, UNBALANCED, lc_form=lc, mi_form=mi)
        for lc, mi in (("gram", "gram"), ("anchored", "point"))
    )

    assert grams.lc != others.lc
    assert grams.mi != others.mi


@pytest.mark.parametrize("phrase", ["a photo of a", None, "a {x} of {"])
def test_the_anchor_is_the_frame_nearest_to_the_hand_written_prompts(
    backbone: Backbone, phrase: str | None
) -> None:
    recipe = Recipe(n_ctx=16, ctx_init=phrase, lc_form="anchored")
    loss = Loss(backbone, TrainingSet(NAMES, FEATURES, BALANCED), recipe)
    start = f"{phrase} " if phrase else ""
    written = backbone.encode_texts([f"{start}{name}." for name in NAMES])

    here, away = (loss(text, FEATURES, BALANCED).lc for text in (written, written[[1, 2, 0]]))
    assert here < away


def test_an_anchor_needs_room_for_the_classes(backbone: Backbone) -> None:
    names, labels = [f"part {index}" for index in range(18)], torch.arange(18)
    data = TrainingSet(names, unit(18, 0), labels)

    assert torch.isfinite(Loss(backbone, data, Recipe())(unit(18, 1), data.features, labels).lc)
    with pytest.raises(BadRecipe, match="18 classes exists in 16 dimensions"):
        Loss(backbone, data, Recipe(lc_form="anchored"))


@pytest.mark.parametrize("class_specific", [False, True])
def test_the_gradient_reaches_the_context_tokens_alone(
    backbone: Backbone, class_specific: bool
) -> None:
    recipe = Recipe(class_specific=class_specific, lc_weight=1.0)
    coop = CoOp(backbone, NAMES, recipe, torch.Generator().manual_seed(0))
    loss = Loss(backbone, TrainingSet(NAMES, FEATURES, BALANCED), recipe)

    text = normalize(backbone.text(coop()), dim=-1)
    loss(text, FEATURES, BALANCED).total.backward()

    assert coop.ctx.grad is not None
    assert coop.ctx.grad.flatten(end_dim=-2).abs().sum(dim=1).min() > 0
    assert all(parameter.grad is None for parameter in backbone.text.parameters())


def test_a_record_holds_the_terms_and_the_collapse(backbone: Backbone) -> None:
    measured = terms(backbone, UNBALANCED, mi_weight=1.0)
    record = measured.record(epoch=2, step=7, guide=torch.tensor(0.25))

    assert (record.epoch, record.step) == (2, 7)
    assert record.loss == measured.total.item()
    assert record.ce + record.mi == pytest.approx(record.loss)
    assert record.text_nc2 == nc2(TEXT).item()
    assert record.text_to_image_nc3 == nc3(TEXT, class_means(FEATURES, UNBALANCED, 3)).item()
