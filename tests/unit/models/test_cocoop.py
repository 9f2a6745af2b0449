"""CoCoOp: text features of each image, learnt on features alone."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from models.backbone import Backbone
from models.collapse import regularizers
from models.errors import BadDataset
from models.methods.cocoop import CoCoOp, CoCoOpRecipe, ConditionalClassifier
from models.methods.method import Classifier, Method
from models.prompts.cocoop import ConditionalPrompts
from models.training_set import Images, TrainingSet
from tests.unit.models.matrices import random_matrix

NAMES = ["good", "scratch", "stain"]


def drawn(n_classes: int = 3) -> TrainingSet:
    labels = torch.arange(9) % n_classes
    centres, noise = random_matrix(n_classes, 16, 1), random_matrix(9, 16, 2)
    features = normalize((centres[labels] + 0.3 * noise).float(), dim=1)
    return TrainingSet(NAMES[:n_classes], features, labels)


def fit(
    backbone: Backbone, data: TrainingSet, seed: int = 0, *, callbacks: Any = (), **values: Any
) -> ConditionalClassifier:
    recipe = CoCoOpRecipe(**({"epochs": 2, "batch_size": 3, "threads": 1} | values))
    return CoCoOp(recipe, callbacks).fit(backbone, data, seed)


def start(backbone: Backbone) -> ConditionalPrompts:
    """Return what a tuning of seed 0 starts from."""
    generator = torch.Generator().manual_seed(0)
    return ConditionalPrompts(backbone, NAMES, 4, "a photo of a", generator)


def test_the_published_recipe() -> None:
    recipe = CoCoOp().recipe

    assert (recipe.n_ctx, recipe.ctx_init) == (4, "a photo of a")
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (10, 1, 0.002)
    assert (recipe.lc_weight, recipe.mi_weight, recipe.logit_adjustment) == (0, 0, 0)
    assert not CoCoOp().needs_pixels


def test_it_is_a_method_and_gives_a_classifier(backbone: Backbone) -> None:
    assert isinstance(CoCoOp(), Method)
    classifier = fit(backbone, drawn())
    assert isinstance(classifier, Classifier)
    assert classifier.settings["method"] == "cocoop"
    assert classifier.settings["lr"] == 0.002


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("batch_size", [1, 9])
def test_the_loss_falls_and_the_classes_are_told_apart(
    backbone: Backbone, n_classes: int, batch_size: int
) -> None:
    losses: list[float] = []
    data = drawn(n_classes)
    classifier = fit(
        backbone,
        data,
        epochs=12,
        batch_size=batch_size,
        lr=0.05,
        callbacks=[lambda _, loss: losses.append(loss)],
    )

    assert losses[-1] < 0.7 * losses[0]
    logits = classifier.logits(Images(data.features))
    assert (logits.argmax(dim=1) == data.labels).float().mean() > 0.8


def test_an_image_is_decided_by_its_own_texts(backbone: Backbone) -> None:
    data = drawn()
    prompts = start(backbone)
    with torch.no_grad():
        for parameter in prompts.meta_net.parameters():
            parameter.add_(1)  # the one hidden unit must not be dead
    classifier = ConditionalClassifier(backbone, prompts, data.features[:1], {})
    images = Images(data.features)
    logits = classifier.logits(images)

    for row, image in zip(logits, data.features, strict=True):
        alone = classifier.logits(Images(image[None]))
        torch.testing.assert_close(alone[0], row, rtol=0, atol=1e-4)
    assert not torch.allclose(
        logits, backbone.logit_scale * data.features @ classifier.text_features.T, atol=1e-3
    )
    assert torch.equal(classifier.image_features(images), data.features)
    assert classifier.logits(Images(data.features[:0])).shape == (0, 3)


def test_its_text_features_are_those_of_the_mean_training_image(backbone: Backbone) -> None:
    data = drawn()
    classifier = fit(backbone, data)
    mean = normalize(data.features.mean(dim=0, keepdim=True), dim=1)

    torch.testing.assert_close(
        classifier.logits(Images(mean)), backbone.logit_scale * mean @ classifier.text_features.T
    )
    torch.testing.assert_close(classifier.text_features.norm(dim=1), torch.ones(3))


def test_one_seed_gives_one_result_and_another_another(backbone: Backbone) -> None:
    first, again, other = (fit(backbone, drawn(), seed).text_features for seed in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_its_loss_is_that_of_each_image_under_its_own_texts(backbone: Backbone) -> None:
    data = drawn()
    heard: list[float] = []

    def loss(**values: float) -> float:
        """Return the loss of all images before anything is learnt."""
        callbacks = [lambda _, loss: heard.append(loss)]
        fit(backbone, data, callbacks=callbacks, batch_size=9, **values)
        return heard[-2]

    prompts = start(backbone)
    with torch.no_grad():
        texts = prompts.text_features(backbone, data.features)
    logits = torch.stack([v @ t.T for v, t in zip(data.features, texts, strict=True)])
    ce = cross_entropy(backbone.logit_scale * logits, data.labels)
    lc = torch.stack([regularizers.lc_gram(text) for text in texts]).mean()
    means = regularizers.class_means(data.features, data.labels, 3)
    present = torch.ones(3, dtype=torch.bool)
    mi = torch.stack([regularizers.mi_point(text, means, present) for text in texts]).mean()
    assert loss() == pytest.approx(float(ce))
    assert loss(lc_weight=2.0) == pytest.approx(float(ce + 2 * lc))
    assert loss(mi_weight=3.0) == pytest.approx(float(ce + 3 * mi))


def test_the_same_prompts_serve_other_names(backbone: Backbone) -> None:
    data = drawn()
    classifier = fit(backbone, data)

    again = classifier.renamed(NAMES)
    assert torch.equal(again.text_features, classifier.text_features)
    other = classifier.renamed(["dent", "scratch"])
    torch.testing.assert_close(other.text_features[1], classifier.text_features[1])
    assert other.logits(Images(data.features)).shape == (9, 2)


def test_one_class_is_refused(backbone: Backbone) -> None:
    one = TrainingSet(NAMES[:1], drawn().features, torch.zeros(9, dtype=torch.int64))
    with pytest.raises(BadDataset, match="at least 2 classes"):
        fit(backbone, one)


def test_the_backbone_stays_frozen(backbone: Backbone) -> None:
    before = [parameter.clone() for parameter in backbone.text.parameters()]
    fit(backbone, drawn())

    for mine, theirs in zip(before, backbone.text.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert theirs.grad is None
