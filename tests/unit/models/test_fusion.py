"""The classifier that joins texts and images, on features that can be judged by hand."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models.fusion import (
    Texts,
    fit_temperature,
    fused_embeddings,
    mean_embeddings,
    posterior_embeddings,
)
from models.recipe import Recipe
from models.training_set import TrainingSet
from tests.unit.models.matrices import random_matrix

RECIPE = Recipe()
NO_TEXT = torch.ones(2, 3) / 3**0.5  # the same for all classes: it says nothing


def clouds(counts: list[int], seed: int = 0, dim: int = 8, noise: float = 0.3) -> TrainingSet:
    """Return unit features around one direction for each class."""
    centres = torch.eye(dim)[: len(counts)] + 1
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    scatter = noise * random_matrix(len(labels), dim, seed).float()
    names = [f"class {index}" for index in range(len(counts))]
    return TrainingSet(names, normalize(centres[labels] + scatter, dim=1), labels)


def logits(embeddings: Tensor, features: Tensor) -> Tensor:
    products = features @ embeddings.T
    return products - products.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(0.0, (1.0, 0.0)), (1.0, (0.5**0.5, 0.5**0.5)), (0.75, (0.8, 0.6)), (1e9, (0.0, 1.0))],
)
def test_the_weighted_sum_by_hand(alpha: float, expected: tuple[float, float]) -> None:
    text, means = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])

    fused = mean_embeddings(text, means, alpha)
    torch.testing.assert_close(fused, torch.tensor([expected]), atol=1e-6, rtol=0)


def test_one_image_a_class_by_hand() -> None:
    # No scatter is seen: s = 1/2 in three dimensions, 1/6 in each, and the frame is the features'.
    # The means are 1 apart from their centre in the plane: v = 2 * 1/2 - 1/2 = 1/2, belief
    # a = (1/2) / (1/2 + 1/2) = 1/2. Posterior means (3/4, 1/4, 0) and (1/4, 3/4, 0), biases both
    # -5/16, which make no difference. z.(M_0 - M_1) for z = (1, 0, 0) is 1/2, over 1/6: 3.
    features, labels = torch.eye(2, 3), torch.tensor([0, 1])

    embeddings = posterior_embeddings(Texts(NO_TEXT, NO_TEXT), features, labels, RECIPE)
    differences = features @ (embeddings[0] - embeddings[1])
    torch.testing.assert_close(differences, torch.tensor([3.0, -3.0]))


def test_a_text_that_fits_is_believed_and_one_that_does_not_is_not() -> None:
    data = clouds([1, 1, 1, 1])
    fits = normalize(torch.eye(8)[:4] + 2, dim=1)
    new = normalize(torch.eye(8)[:4] + 1, dim=1)

    def margin(text: Tensor) -> float:
        found = logits(
            posterior_embeddings(Texts(text, text), data.features, data.labels, RECIPE), new
        )
        return found.diagonal().mean().item()

    silent = margin(torch.ones(4, 8) / 8**0.5)
    assert margin(fits) > silent
    assert margin(fits.flip(0)) == pytest.approx(silent, rel=1e-4)  # against the images: gain 0


def test_texts_that_were_tuned_on_the_images_do_not_vouch_for_themselves() -> None:
    data = clouds([1, 1, 1, 1])
    fits, against = normalize(torch.eye(8)[:4] + 2, dim=1), normalize(2 - torch.eye(8)[:4], dim=1)
    silent = torch.ones(4, 8) / 8**0.5

    def embeddings(tuned: Tensor, written: Tensor) -> Tensor:
        return posterior_embeddings(Texts(tuned, written), data.features, data.labels, RECIPE)

    assert torch.equal(embeddings(fits, against), embeddings(silent, against))
    assert not torch.allclose(embeddings(fits, fits), embeddings(silent, fits))


def test_a_class_without_images_is_known_by_its_text() -> None:
    whole = clouds([6, 6, 6, 6], noise=0.05)
    text = normalize(torch.eye(8)[:4] + 2, dim=1)
    part = whole.subset(range(18))  # none of the last class

    embeddings = posterior_embeddings(Texts(text, text), part.features, part.labels, RECIPE)
    assert (whole.features @ embeddings.T).argmax(dim=1).tolist() == whole.labels.tolist()


def test_with_many_images_it_is_linear_discriminant_analysis() -> None:
    data = clouds([400, 400, 400], noise=0.5)
    text = torch.ones(3, 8) / 8**0.5
    new = clouds([50, 50, 50], seed=9, noise=0.5)
    embeddings = posterior_embeddings(Texts(text, text), data.features, data.labels, RECIPE)

    x, y = data.features.double(), data.labels
    means = torch.stack([x[y == c].mean(dim=0) for c in range(3)])
    covariance = (x - means[y]).T @ (x - means[y]) / (1200 - 3)
    weights = torch.linalg.solve(covariance, means.T).T
    expected = new.features.double() @ weights.T - (weights * means).sum(dim=1) / 2
    found = logits(embeddings, new.features)
    wanted = (expected - expected.mean(dim=1, keepdim=True)).float()
    assert (found.argmax(dim=1) == wanted.argmax(dim=1)).float().mean() > 0.98
    assert torch.corrcoef(torch.stack([found.flatten(), wanted.flatten()]))[0, 1] > 0.99


def test_a_rare_class_is_not_drowned() -> None:
    data, new = clouds([16, 16, 1], noise=0.25), clouds([40, 40, 40], seed=5, noise=0.25)
    text = torch.ones(3, 8) / 8**0.5

    def recall(caution: float) -> float:
        recipe = Recipe(caution=caution)
        embeddings = posterior_embeddings(Texts(text, text), data.features, data.labels, recipe)
        found = (new.features @ embeddings.T).argmax(dim=1)
        return (found[new.labels == 2] == 2).float().mean().item()

    assert recall(3.0) >= recall(0.0)
    assert recall(3.0) > 0.5


def test_equal_counts_leave_no_room_for_caution() -> None:
    data = clouds([5, 5, 5])
    text = normalize(random_matrix(3, 8, 3).float(), dim=1)

    bold, cautious = (
        posterior_embeddings(Texts(text, text), data.features, data.labels, Recipe(caution=caution))
        for caution in (0.0, 9.0)
    )
    assert torch.equal(bold, cautious)


@pytest.mark.parametrize("counts", [[1, 1], [2, 1], [3, 3, 0], [1, 0, 0]])
def test_whatever_the_counts_it_is_finite(counts: list[int]) -> None:
    data = clouds(counts)
    text = normalize(random_matrix(len(counts), 8, 3).float(), dim=1)

    assert (
        posterior_embeddings(Texts(text, text), data.features, data.labels, RECIPE).isfinite().all()
    )


def test_images_that_are_all_the_same_are_finite() -> None:
    features = torch.eye(3)[[0, 0, 0, 0]]

    embeddings = posterior_embeddings(
        Texts(NO_TEXT, NO_TEXT), features, torch.tensor([0, 0, 1, 1]), RECIPE
    )
    assert embeddings.isfinite().all()


def test_separate_clouds_call_for_more_certainty_than_mixed_ones() -> None:
    text = torch.ones(3, 8) / 8**0.5
    clear, mixed = clouds([8, 8, 8], noise=0.05), clouds([8, 8, 8], noise=2.0)

    def temperature(data: TrainingSet) -> float:
        return fit_temperature(Texts(text, text), data, [str(n) for n in range(24)], RECIPE)

    assert temperature(clear) < temperature(mixed)


def test_one_image_a_class_cannot_be_held_out() -> None:
    data = clouds([1, 1, 1])
    text = torch.ones(3, 8) / 8**0.5

    assert fit_temperature(Texts(text, text), data, ["a", "b", "c"], RECIPE) == 16.0


def test_the_scale_of_predictions_is_divided_out() -> None:
    data = clouds([4, 4, 4])
    text = normalize(random_matrix(3, 8, 3).float(), dim=1)

    ten, hundred = (
        fused_embeddings(Texts(text, text), data, RECIPE, scale) for scale in (10.0, 100.0)
    )
    torch.testing.assert_close(10 * ten, 100 * hundred)


def test_a_group_is_an_image_where_no_groups_are_given() -> None:
    data = clouds([4, 4, 4])
    grouped = TrainingSet(data.prompt_names, data.features, data.labels, list("abcdefghijkl"))
    text = normalize(random_matrix(3, 8, 3).float(), dim=1)

    assert torch.equal(
        fused_embeddings(Texts(text, text), data, RECIPE, 10.0),
        fused_embeddings(Texts(text, text), grouped, RECIPE, 10.0),
    )


def test_the_mean_is_still_to_be_had() -> None:
    data = clouds([4, 4, 4])
    text = normalize(random_matrix(3, 8, 3).float(), dim=1)

    embeddings = fused_embeddings(Texts(text, text), data, Recipe(fusion="mean", alpha=0.0), 10.0)
    torch.testing.assert_close(embeddings, text)
