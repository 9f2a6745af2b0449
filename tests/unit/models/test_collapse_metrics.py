"""NC1 to NC4, CDNV, equinorm and equiangularity, with values by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from models.collapse.etf import fit_etf
from models.collapse.metrics import (
    cdnv,
    collapse_metrics,
    equiangularity,
    equinorm,
    nc1,
    nc2,
    nc3,
)
from tests.unit.models.matrices import TRIANGLE, random_matrix, random_rotation

# Two classes on a line: means 1 and -1, every image 1/2 away from its class mean.
LINE = torch.tensor([[0.5], [1.5], [-0.5], [-1.5]])
LINE_LABELS = torch.tensor([0, 0, 1, 1])
# Three points on a line, the third in the middle of the other two.
MIDDLE = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])


def test_nc1_and_cdnv_by_hand() -> None:
    assert nc1(LINE, LINE_LABELS, 2).item() == pytest.approx(0.125)  # S_W 1/4, S_B 1, K 2
    assert cdnv(LINE, LINE_LABELS, 2).item() == pytest.approx(0.0625)  # (1/4 + 1/4) / (2 · 4)


def test_nc1_and_cdnv_are_zero_on_collapsed_features() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2])
    features = torch.tensor(TRIANGLE)[labels]

    assert nc1(features, labels, 3).item() == pytest.approx(0, abs=1e-12)
    assert cdnv(features, labels, 3).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dim", [2, 5, 30])
def test_nc1_is_what_the_textbook_computes(dim: int) -> None:
    features, labels = random_matrix(20, dim), torch.arange(20) % 4
    x, y = features.numpy(), labels.numpy()
    means = np.stack([x[y == c].mean(axis=0) for c in range(4)])
    between, within = means - means.mean(axis=0), x - means[y]
    s_b, s_w = between.T @ between / 4, within.T @ within / 20

    expected = np.trace(np.linalg.pinv(s_b, rcond=1e-10) @ s_w) / 4
    assert nc1(features, labels, 4).item() == pytest.approx(expected)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_nc2_is_zero_on_a_simplex_etf_of_any_length_and_place(k: int) -> None:
    frame = fit_etf(random_matrix(k, 6))

    assert nc2(frame).item() == pytest.approx(0, abs=1e-7)
    assert nc2(7 * frame + 3).item() == pytest.approx(0, abs=1e-7)


@given(seed=st.integers(0, 1000), dim=st.integers(1, 6))
def test_nc2_is_identically_zero_for_two_classes(seed: int, dim: int) -> None:
    assert nc2(random_matrix(2, dim, seed)).item() == pytest.approx(0, abs=1e-7)


def test_nc2_by_hand() -> None:
    # G = [[1,-1,0],[-1,1,0],[0,0,0]], of norm 2; its product with the ideal is 1/√2.
    assert nc2(MIDDLE).item() == pytest.approx(math.sqrt(2 - math.sqrt(2)))


def test_nc3_by_hand() -> None:
    triangle = torch.tensor(TRIANGLE)

    assert nc3(triangle, 2 * triangle).item() == pytest.approx(0, abs=1e-6)
    # Every text feature at the image mean of the next class: the product with the ideal is -1/2.
    assert nc3(triangle, triangle[[1, 2, 0]]).item() == pytest.approx(math.sqrt(3), abs=1e-6)


def test_equinorm_and_equiangularity_by_hand() -> None:
    # Lengths 1, 1, 0: mean 2/3, variance 2/9. Cosines -1, 0, 0: variance 2/9.
    assert equinorm(MIDDLE).item() == pytest.approx(math.sqrt(2) / 2)
    assert equiangularity(MIDDLE).item() == pytest.approx(math.sqrt(2) / 3)
    assert equinorm(torch.tensor(TRIANGLE)).item() == pytest.approx(0, abs=1e-6)
    assert equiangularity(torch.tensor(TRIANGLE)).item() == pytest.approx(0, abs=1e-6)


@given(seed=st.integers(0, 1000))
def test_no_measure_sees_a_rotation(seed: int) -> None:
    text, means, features = (random_matrix(n, 4, seed + n) for n in (3, 3, 12))
    labels, rotation = torch.arange(12) % 3, random_rotation(4, seed)

    torch.testing.assert_close(nc1(features @ rotation, labels, 3), nc1(features, labels, 3))
    torch.testing.assert_close(cdnv(features @ rotation, labels, 3), cdnv(features, labels, 3))
    torch.testing.assert_close(nc2(text @ rotation), nc2(text))
    torch.testing.assert_close(nc3(text @ rotation, means @ rotation), nc3(text, means))


def test_nc4_counts_where_text_and_nearest_mean_agree() -> None:
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 1])

    # The second image is nearer to the text of class 1 and to the mean of class 0.
    assert collapse_metrics(torch.eye(2), features, labels).nc4 == 0.75


def test_the_measures_of_full_collapse() -> None:
    triangle, labels = torch.tensor(TRIANGLE), torch.tensor([0, 1, 2, 2])

    measured = collapse_metrics(triangle, triangle[labels], labels).model_dump()
    assert measured.pop("nc4") == 1
    assert measured.pop("text_cosine") == pytest.approx(-0.5)
    assert measured == {name: pytest.approx(0, abs=1e-6) for name in measured}


def test_the_measures_stand_under_their_names() -> None:
    text, features, labels = normalize(MIDDLE + 1, dim=1), LINE @ torch.ones(1, 2), LINE_LABELS
    features, labels = torch.cat([features, features[:1]]), torch.tensor([0, 0, 1, 1, 2])
    measured = collapse_metrics(text, features, labels)

    assert measured.text_nc2 == nc2(text).item()
    assert measured.nc1 == nc1(features, labels, 3).item()
    assert measured.cdnv == cdnv(features, labels, 3).item()
    assert measured.text_equinorm == equinorm(text).item()
    assert measured.text_equiangularity == equiangularity(text).item()
    # (2/√5·0 + …): the texts are (2,1)/√5, (0,1) and (1,1)/√2.
    cosines = [1 / math.sqrt(5), 3 / math.sqrt(10), 1 / math.sqrt(2)]
    assert measured.text_cosine == pytest.approx(sum(cosines) / 3)


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_every_measure_is_a_number_where_class_means_coincide(spread: float) -> None:
    features = normalize(torch.tensor([[1.0, spread], [1.0, -spread]] * 2), dim=1)
    same_text = torch.tensor([[0.6, 0.8], [0.6, 0.8]])

    measured = collapse_metrics(same_text, features, LINE_LABELS)

    assert all(math.isfinite(value) for value in measured.model_dump().values()), measured
    if spread:
        assert measured.nc1 > 1e3
        assert measured.cdnv > 1e3
