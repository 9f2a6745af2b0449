"""LC and MI, with values by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from models.collapse.etf import fit_etf
from models.collapse.regularizers import class_means, lc_anchored, lc_gram, mi_gram, mi_point
from tests.unit.models.matrices import TRIANGLE, random_matrix, random_rotation

ALL = torch.ones(2, dtype=torch.bool)
AXES = torch.eye(2)


@pytest.mark.parametrize("k", [2, 3, 4, 7])
def test_lc_is_zero_on_a_simplex_etf(k: int) -> None:
    frame = fit_etf(random_matrix(k, 8))

    assert lc_gram(frame).item() == pytest.approx(0, abs=1e-12)
    assert lc_anchored(frame, frame).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (torch.eye(2), 1.0),  # (0 + 1)²
        (torch.eye(3), 0.25),  # (0 + 1/2)²
        (torch.tensor([[1.0, 0.0], [1.0, 0.0]]), 4.0),  # (1 + 1)²
        # Cosines 1, 0 and 0 of three pairs against -1/2: (9/4 + 1/4 + 1/4) / 3.
        (torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 11 / 12),
    ],
)
def test_lc_gram_by_hand(text: torch.Tensor, expected: float) -> None:
    assert lc_gram(text).item() == pytest.approx(expected)


def test_lc_anchored_by_hand() -> None:
    frame = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])

    assert lc_anchored(-frame, frame).item() == pytest.approx(4)  # (1 + 1)²
    assert lc_anchored(frame[[0, 0]], frame).item() == pytest.approx(2)  # (0 + 4) / 2
    assert lc_anchored(AXES, frame).item() == pytest.approx(0.5)  # ((1 - 1)² + (1 - 0)²) / 2


def test_lc_gram_does_not_see_a_rotation_and_lc_anchored_does() -> None:
    triangle = torch.tensor(TRIANGLE)
    turned = triangle[[1, 2, 0]]

    assert lc_gram(turned).item() == pytest.approx(0, abs=1e-6)
    assert lc_anchored(turned, triangle).item() == pytest.approx(2.25)  # (1 + 1/2)²


def test_mi_point_by_hand() -> None:
    means = torch.tensor([[0.0, 1.0], [0.0, 1.0]])

    assert mi_point(AXES, AXES, ALL).item() == 0
    assert mi_point(AXES, means, ALL).item() == pytest.approx(1)  # (2 + 0) / 2


def test_mi_gram_by_hand() -> None:
    means = torch.tensor([[0.0, 1.0], [0.0, 1.0]])

    assert mi_gram(AXES, means, ALL).item() == pytest.approx(1)  # (1 - 0)²
    assert mi_gram(AXES, AXES[[1, 0]], ALL).item() == 0  # the same angles


def test_absent_classes_count_for_nothing() -> None:
    present = torch.tensor([True, True, False])
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    means = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])

    assert mi_point(text, means, present).item() == pytest.approx(1)
    assert mi_gram(text, means, present).item() == pytest.approx(1)


def test_class_means_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 2, 0, 0])

    expected = [[0.5**0.5, 0.5**0.5], [0.0, 0.0], [0.0, 1.0]]
    torch.testing.assert_close(class_means(features, labels, 3), torch.tensor(expected))


def test_a_class_has_the_same_weight_however_many_images_it_has() -> None:
    few = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    many = few[[0, 1, 1, 1, 1, 1]]

    once = class_means(few, torch.tensor([0, 1]), 2)
    often = class_means(many, torch.tensor([0, 1, 1, 1, 1, 1]), 2)
    assert mi_point(AXES, often, ALL) == mi_point(AXES, once, ALL)


@given(k=st.integers(2, 6), dim=st.integers(2, 6), seed=st.integers(0, 1000))
def test_gram_forms_do_not_see_a_rotation(k: int, dim: int, seed: int) -> None:
    text, means = (normalize(random_matrix(k, dim, seed + i), dim=1) for i in (0, 1))
    rotation, present = random_rotation(dim, seed + 2), torch.ones(k, dtype=torch.bool)

    torch.testing.assert_close(lc_gram(text @ rotation), lc_gram(text))
    torch.testing.assert_close(
        mi_gram(text, means @ rotation, present), mi_gram(text, means, present)
    )
