"""The simplex ETF: K unit vectors whose pairwise cosines are all -1/(K-1)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.collapse.etf import fit_etf, target_cosine
from models.errors import BadDataset, BadRecipe
from tests.unit.models.matrices import TRIANGLE, random_matrix, random_rotation

GRAMS = {
    2: [[1, -1], [-1, 1]],
    3: [[1, -1 / 2, -1 / 2], [-1 / 2, 1, -1 / 2], [-1 / 2, -1 / 2, 1]],
    4: [
        [1, -1 / 3, -1 / 3, -1 / 3],
        [-1 / 3, 1, -1 / 3, -1 / 3],
        [-1 / 3, -1 / 3, 1, -1 / 3],
        [-1 / 3, -1 / 3, -1 / 3, 1],
    ],
}


@pytest.mark.parametrize(("k", "cosine"), [(2, -1.0), (3, -0.5), (4, -1 / 3), (11, -0.1)])
def test_the_target_cosine_by_hand(k: int, cosine: float) -> None:
    assert target_cosine(k) == pytest.approx(cosine)


def test_one_class_has_no_frame() -> None:
    for refused in (lambda: target_cosine(1), lambda: fit_etf(torch.ones(1, 4))):
        with pytest.raises(BadDataset, match="needs at least 2 classes; found 1"):
            refused()


@pytest.mark.parametrize("k", GRAMS)
@pytest.mark.parametrize("extra", [-1, 0, 5])
def test_the_gram_matrix_is_the_one_written_out(k: int, extra: int) -> None:
    frame = fit_etf(random_matrix(k, k + extra))

    torch.testing.assert_close(frame @ frame.T, torch.tensor(GRAMS[k], dtype=torch.float64))
    torch.testing.assert_close(frame.sum(dim=0), torch.zeros(k + extra, dtype=torch.float64))


def test_a_frame_needs_one_dimension_less_than_classes() -> None:
    assert fit_etf(random_matrix(4, 3)).shape == (4, 3)
    with pytest.raises(BadRecipe, match="No simplex ETF of 5 classes exists in 3 dimensions") as e:
        fit_etf(random_matrix(5, 3))
    assert "at most 4 classes" in e.value.problem
    assert "lc_form 'gram'" in e.value.fix


@given(k=st.integers(2, 6), extra=st.integers(-1, 4), seed=st.integers(0, 1000))
def test_the_frame_that_fits_a_rotated_frame_is_that_frame(k: int, extra: int, seed: int) -> None:
    dim = k + extra
    frame = fit_etf(random_matrix(k, dim, seed)) @ random_rotation(dim, seed + 1)

    torch.testing.assert_close(fit_etf(frame), frame)
    torch.testing.assert_close(fit_etf(3 * frame), frame)


def test_no_other_rotation_of_the_frame_lies_closer() -> None:
    features = random_matrix(3, 5)
    best = fit_etf(features)

    for seed in range(20):
        other = best @ random_rotation(5, seed)
        assert (best - features).norm() < (other - features).norm()


def test_the_triangle_is_the_frame_of_three_in_the_plane() -> None:
    triangle = torch.tensor(TRIANGLE)

    torch.testing.assert_close(fit_etf(triangle), triangle)
    assert fit_etf(triangle).dtype == torch.float32
