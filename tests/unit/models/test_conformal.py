"""Prediction sets: p-values by hand, coverage where images are exchangeable, groups, few images."""

import numpy as np
import pytest
from crepes import ConformalClassifier
from hypothesis import given
from hypothesis import strategies as st

from models.trust.conformal import Scores, class_scores, one_per_group, role_scores, too_few
from models.trust.quantised import Quantised


def test_p_values_by_hand() -> None:
    # Class 0: two folds with scores 1, 3 and 2; class 1: 5 in the first fold alone.
    scores = Scores.of([[[1.0, 3.0], [2.0]], [[5.0], []]])
    seen = np.array([[2.5, 4.0], [1.5, 9.0]])
    # 3 >= 2.5 and 2 >= 1.5 of the three, 5 >= 4 of the one.
    np.testing.assert_allclose(scores.p_values(seen), [(1 + 2) / 4, (1 + 1) / 2])


def test_each_score_is_compared_under_the_model_that_gave_it() -> None:
    scores = Scores.of([[[1.0], [10.0]]])
    assert scores.p_values(np.array([[0.5], [11.0]]))[0] == pytest.approx(2 / 3)
    assert scores.p_values(np.array([[11.0], [0.5]]))[0] == pytest.approx(2 / 3)
    assert scores.p_values(np.array([[11.0], [11.0]]))[0] == pytest.approx(1 / 3)


def test_equal_scores_count_for_the_class() -> None:
    scores = Scores.of([[[2.0, 2.0, 2.0]]])
    assert scores.p_values(np.array([[2.0]]))[0] == 1


def test_a_class_with_too_few_images_is_compared_with_all() -> None:
    # Nine images reach 1/10, which is alpha; eight do not, and are pooled.
    nine, eight = [float(n) for n in range(9)], [float(n) for n in range(8)]
    scores = Scores.of([[nine], [eight]])
    seen = np.array([[100.0, 100.0]])
    np.testing.assert_allclose(scores.p_values(seen), [1 / 10, 1 / 9])
    np.testing.assert_allclose(scores.p_values(seen, 0.1), [1 / 10, 1 / 18])
    np.testing.assert_allclose(scores.p_values(np.array([[100.0, 6.5]]), 0.1)[1], (1 + 3) / 18)
    assert too_few(np.array([9, 8, 0]), 0.1).tolist() == [False, True, True]


def test_a_class_without_any_image_is_pooled() -> None:
    scores = Scores.of([[[1.0] * 19], [[]]])
    np.testing.assert_allclose(scores.p_values(np.array([[0.0, 2.0]]), 0.1), [1, 1 / 20])


def test_no_scores_reject_nothing() -> None:
    assert Scores.of([[[], []], [[], []]]).p_values(np.ones((2, 2)), 0.1).tolist() == [1, 1]


def test_with_one_fold_it_is_what_a_library_says() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    calibration, new = rng.random(60), rng.random((25, 3))
    library = ConformalClassifier().fit(calibration, bins=labels)
    table = [[calibration[labels == label].tolist()] for label in range(3)]
    scores = Scores.of(table)
    for label in range(3):
        # crepes takes the category of the object; asked once for each class that it could be of.
        theirs = library.predict_p(
            new.astype(np.float32), bins=np.full(len(new), label), smoothing=False
        )[:, label]
        ours = [scores.p_values(row[None].astype(np.float32))[label] for row in new]
        np.testing.assert_allclose(ours, theirs)


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.2, 0.3]))
def test_a_higher_alpha_gives_no_larger_set(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    scores = Scores.of([[rng.random(7).tolist(), rng.random(9).tolist()] for _ in range(3)])
    seen = rng.random((2, 3))
    smaller = scores.p_values(seen, alpha) > alpha
    larger = scores.p_values(seen, alpha / 2) > alpha / 2
    assert (larger | ~smaller).all() or too_few(scores.counts, alpha / 2).any()


def draw(rng: np.random.Generator, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping clouds in the plane."""
    labels = np.repeat(np.arange(3), per_class)
    centres = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 1.7]])
    return centres[labels] + rng.normal(0, 1, (len(labels), 2)), labels


def cross_conformal(
    rng: np.random.Generator, per_class: int, alpha: float, *, copies: int = 1
) -> tuple[float, list[float]]:
    """Return the coverage of nearest-mean models by three folds, of all and of each class."""
    x, y = draw(rng, per_class)
    x, y = np.repeat(x, copies, axis=0), np.repeat(y, copies)
    part = np.repeat(np.arange(3 * per_class), copies)
    folds = part % 3
    means = np.stack([
        np.stack([x[(y == label) & (folds != fold)].mean(axis=0) for label in range(3)])
        for fold in range(3)
    ])  # fmt: skip

    def score(points: np.ndarray) -> np.ndarray:
        away = ((points[:, None, None] - means) ** 2).sum(axis=-1)
        return class_scores(-away / 2)

    own = score(x)[np.arange(len(y)), folds, y]
    digests = [f"{number:08}" for number in rng.permutation(len(y))]
    chosen = one_per_group(y.tolist(), [str(p) for p in part], digests)
    table: list[list[list[float]]] = [[[] for _ in range(3)] for _ in range(3)]
    for index in chosen:
        table[y[index]][folds[index]].append(float(own[index]))
    scores = Scores.of(table)
    new, labels = draw(rng, 300)
    held = np.array([
        scores.p_values(seen, alpha)[label] > alpha
        for seen, label in zip(score(new), labels, strict=True)
    ])  # fmt: skip
    return float(held.mean()), [float(held[labels == label].mean()) for label in range(3)]


@pytest.mark.parametrize(("copies", "per_class"), [(1, 16), (4, 16), (1, 5)])
def test_sets_of_exchangeable_images_hold_the_truth_as_often_as_promised(
    copies: int, per_class: int
) -> None:
    """Of groups too, of which every image is a copy; and of classes that are pooled."""
    runs = [
        cross_conformal(np.random.default_rng([copies, seed]), per_class, 0.1, copies=copies)
        for seed in range(30)
    ]
    assert 0.88 <= np.mean([overall for overall, _ in runs]) <= 0.97
    worst = np.mean([of_classes for _, of_classes in runs], axis=0).min()
    assert worst >= (0.88 if per_class == 16 else 0.8)


def test_one_of_each_group_and_class_is_scored_whatever_the_order() -> None:
    labels, groups = [0, 0, 1, 0, 1], ["a", "a", "a", "b", "a"]
    digests = ["2", "1", "9", "7", "8"]
    assert one_per_group(labels, groups, digests) == [1, 3, 4]
    back = one_per_group(labels[::-1], groups[::-1], digests[::-1])
    assert sorted(digests[::-1][i] for i in back) == sorted(digests[i] for i in [1, 3, 4])


def test_the_scores_of_classes_and_roles_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2]]))
    np.testing.assert_allclose(np.exp(-class_scores(logits)), [[0.5, 0.3, 0.2]])
    members = np.array([[True, False, False], [False, True, True], [False, False, False]])
    found = role_scores(logits, members)
    np.testing.assert_allclose(np.exp(-found), [[0.5, 0.5, 0.0]])


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 40))
def test_a_quantised_row_is_off_by_half_a_step_at_most(seed: int, n: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(0, 1, (n, dim)) * 10.0 ** rng.integers(-3, 4)).astype(np.float32)
    kept = Quantised.of(rows)
    assert kept.rows.dtype == np.int8
    error = np.abs(kept.rows * kept.scales[:, None] - rows)
    assert (error <= 0.51 * kept.scales[:, None] + 1e-30).all()
    again = Quantised.of(kept.rows * kept.scales[:, None])
    np.testing.assert_array_equal(again.rows, kept.rows)


def test_a_row_of_zeros_stays_one() -> None:
    kept = Quantised.of(np.zeros((2, 3), dtype=np.float32))
    assert not kept.products(np.ones((1, 3), dtype=np.float32)).any()
