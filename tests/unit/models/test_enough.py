"""Learning curves: the fit, the sub-samples, and what is said of them."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from models.enough.curve import LEAST_GROUPS, learning_curve
from models.enough.fit import EXPONENTS, fit
from models.enough.measure import FRACTIONS, measure
from models.fusion import Frame, Texts, embeddings_of_means, plain_means, posterior_embeddings
from models.recipe import Recipe
from models.training_set import TrainingSet

SIZES = np.array([3.0, 5.0, 8.0, 13.0])


def drawn(
    *counts: int, noise: tuple[float, ...], dim: int = 64, groups: list[str] | None = None
) -> tuple[TrainingSet, torch.Tensor]:
    """Images around a mean of each class; `noise` is how far."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(len(counts), dim, generator=generator)
    rows, labels = [], []
    for label, count in enumerate(counts):
        rows.append(means[label] + noise[label] * torch.randn(count, dim, generator=generator))
        labels += [label] * count
    names = [f"class {label}" for label in range(len(counts))]
    features = normalize(torch.cat(rows), dim=-1)
    data = TrainingSet(names, features, torch.tensor(labels), groups)
    return data, normalize(torch.randn(len(counts), dim, generator=generator), dim=-1)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_law_is_found_again(exponent: float) -> None:
    laws = fit(0.002 + 0.6 * SIZES[None] ** -exponent, SIZES)
    assert laws.exponent.tolist() == [exponent]
    assert laws.floor[0] == pytest.approx(0.002)
    assert laws.scale[0] == pytest.approx(0.6)
    assert laws.at(26.0)[0] == pytest.approx(0.002 + 0.6 * 26**-exponent)


def test_bounds_of_a_law() -> None:
    rising, flat, steep = [0.1, 0.2, 0.3, 0.4], [0.2] * 4, [0.9, 0.3, 0.05, 0.0]
    laws = fit(np.array([rising, flat, steep]), SIZES)
    assert np.all(laws.scale >= 0)
    assert np.all((laws.floor >= 0) & (laws.floor <= np.array([0.1, 0.05, 0.0]) + 1e-12))
    assert np.all((laws.at(1.0) >= 0) & (laws.at(1.0) <= 1))
    assert np.all(laws.at(20.0) <= laws.at(10.0))


def test_in_a_basis_of_what_they_span_the_classifier_is_the_same() -> None:
    data, written = drawn(6, 5, 4, noise=(0.8, 0.8, 0.8))
    texts, recipe = Texts(written, written), Recipe()
    whole = posterior_embeddings(texts, data.features, data.labels, recipe)
    basis, _ = torch.linalg.qr(torch.cat([data.features, written]).double().T)
    x, said = data.features.double() @ basis, written.double() @ basis
    counts = data.counts().double()
    frame = Frame.of(x, data.labels, counts, recipe.prior_images, dim=data.features.shape[1])
    means = plain_means(x, data.labels, counts)
    inside = embeddings_of_means(means, counts, frame, Texts(said, said), recipe.caution)
    torch.testing.assert_close(x.float() @ inside.T, data.features @ whole.T, atol=1e-3, rtol=1e-3)


def test_sub_samples_keep_a_part_together() -> None:
    groups = [f"{label}-{number // 2}" for label in range(2) for number in range(20)]
    data, written = drawn(20, 20, noise=(0.5, 0.5), groups=groups)
    measured = measure(data, written, Recipe(), seed=0)
    # Of 8 parts of two images, a quarter, 0.4, 0.63 and all, in every one of the splits.
    expected = [2 * round(8 * share) for share in FRACTIONS]
    assert measured.images.tolist() == [expected, expected]
    assert measured.tested.tolist() == [1.0] * 40
    assert measured.wrong.shape == (4, 40)


def test_the_class_that_gains_most_is_next() -> None:
    data, written = drawn(20, 20, 20, noise=(0.3, 2.2, 0.3))
    curve = learning_curve(data, written, Recipe(), ["fine", "hard", "plain"], seed=0)
    assert curve.next_class == 1
    assert "'hard'" in curve.sentence
    hard, fine = curve.classes[1], curve.classes[0]
    assert hard.gain is not None
    assert fine.gain is not None
    assert hard.gain.low <= hard.gain.value <= hard.gain.high
    assert 0 < hard.gain.value < 1
    assert fine.gain.value <= hard.gain.value
    assert "20 images" in hard.sentence
    again = learning_curve(data, written, Recipe(), ["fine", "hard", "plain"], seed=0)
    assert again == curve


def test_of_too_few_parts_nothing_is_said() -> None:
    data, written = drawn(12, LEAST_GROUPS - 1, 1, noise=(0.5, 0.5, 0.5))
    curve = learning_curve(data, written, Recipe(), ["many", "few", "one"], seed=0)
    assert [entry.gain is None for entry in curve.classes] == [False, True, True]
    assert curve.next_class == 2
    assert "fewer than 5 parts" in curve.sentence
    assert "1 image of 1 part;" in curve.classes[2].sentence
    lonely, said = drawn(2, 1, noise=(0.5, 0.5))
    bare = learning_curve(lonely, said, Recipe(), ["a", "b"], seed=0)
    assert [entry.fit for entry in bare.classes] == [None, None]
    assert bare.next_class == 1


def test_identical_images_are_learnt_already() -> None:
    labels = [0] * 8 + [1] * 8
    features = normalize(torch.eye(2, 16)[labels], dim=-1)
    data = TrainingSet(["a", "b"], features, torch.tensor(labels))
    written = normalize(torch.ones(2, 16), dim=-1)
    curve = learning_curve(data, written, Recipe(), ["a", "b"], seed=0)
    assert all(entry.gain is not None and entry.gain.value == 0 for entry in curve.classes)
    assert "probably enough images" in curve.sentence
