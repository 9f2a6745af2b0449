"""Accuracies with their intervals, confusion and calibration, with values by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.metrics import (
    evaluate,
    expected_calibration_error,
    macro_accuracy,
    proportion,
)


def posterior_below(bound: float, right: int, total: int) -> float:
    """Integrate Jeffreys' posterior, `x^(right-1/2) (1-x)^(total-right-1/2)`, up to `bound`."""
    # With x = sin²(a) the integrand has no poles at 0 and 1.
    angles = (np.arange(200_000) + 0.5) / 200_000 * np.pi / 2
    mass = np.sin(angles) ** (2 * right) * np.cos(angles) ** (2 * (total - right))
    return float(mass[np.sin(angles) ** 2 < bound].sum() / mass.sum())


@pytest.mark.parametrize(("right", "total"), [(5, 10), (1, 2), (95, 100), (1, 30)])
def test_an_interval_holds_the_middle_of_the_posterior(right: int, total: int) -> None:
    measured = proportion(right, total)

    assert measured.value == right / total
    assert posterior_below(measured.low, right, total) == pytest.approx(0.025, abs=1e-4)
    assert posterior_below(measured.high, right, total) == pytest.approx(0.975, abs=1e-4)


def test_none_and_all_reach_the_ends() -> None:
    none, every = proportion(0, 10), proportion(10, 10)

    assert (none.value, none.low) == (0, 0)
    assert (every.value, every.high) == (1, 1)
    assert posterior_below(none.high, 0, 10) == pytest.approx(0.975, abs=1e-4)
    assert posterior_below(every.low, 10, 10) == pytest.approx(0.025, abs=1e-4)


@given(total=st.integers(1, 500), share=st.floats(0, 1))
def test_an_interval_holds_its_value_and_mirrors(total: int, share: float) -> None:
    right = round(share * total)
    measured, mirrored = proportion(right, total), proportion(total - right, total)

    assert 0 <= measured.low <= measured.value <= measured.high <= 1
    assert measured.low < measured.high
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((measured.low, measured.high))


def test_macro_accuracy_is_the_mean_of_the_classes() -> None:
    measured = macro_accuracy([9, 0, 1], [10, 1, 2])

    assert measured.value == pytest.approx((0.9 + 0 + 0.5) / 3)
    assert measured.low < measured.value < measured.high


def test_the_interval_of_a_macro_accuracy_by_hand() -> None:
    # Jeffreys: 5 of 10 is 0.5 within 0.2235 and 0.7765, 10 of 10 is 1 within 0.7828 and 1.
    # Half the root of 0.2765² + 0.2172² is 0.1758, half the root of 0.2765² + 0² is 0.1382.
    measured = macro_accuracy([5, 10], [10, 10])

    assert measured.value == 0.75
    assert measured.low == pytest.approx(0.75 - 0.1758, abs=1e-4)
    assert measured.high == pytest.approx(0.75 + 0.1382, abs=1e-4)


def test_macro_accuracy_of_one_class_has_its_jeffreys_interval() -> None:
    one, draws = proportion(5, 10), macro_accuracy([5], [10])

    assert (draws.low, draws.high) == pytest.approx((one.low, one.high), abs=0.01)


@pytest.mark.parametrize(("right", "bound"), [([2, 1], "high"), ([0, 0], "low")])
def test_the_interval_of_all_or_nothing_holds_its_value(right: list[int], bound: str) -> None:
    measured = macro_accuracy(right, [2, 1])

    assert getattr(measured, bound) == measured.value


def test_more_images_make_a_narrower_interval() -> None:
    few, many = macro_accuracy([3, 4], [4, 5]), macro_accuracy([300, 400], [400, 500])

    assert many.high - many.low < (few.high - few.low) / 5


def test_an_evaluation_by_hand() -> None:
    probabilities = torch.tensor(
        [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.6, 0.2, 0.2]]
    )
    measured = evaluate(probabilities, torch.tensor([0, 0, 1, 2, 2]), "holdout")

    assert measured.basis == "holdout"
    assert measured.n_images == 5
    assert measured.confusion == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert measured.top1 == proportion(3, 5)
    assert measured.macro.value == pytest.approx(2 / 3)
    assert [part.value for part in measured.per_class] == [0.5, 1.0, 0.5]


def test_confusion_keeps_a_class_that_is_never_predicted() -> None:
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0]])

    measured = evaluate(probabilities, torch.tensor([0, 1, 2]), "out-of-fold")
    assert measured.confusion == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_calibration_error_by_hand() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.0, 1.0]])
    # Confidence 0.9, one of two right: gap 0.4 twice; 0.6 right: gap 0.4; 1.0 right: no gap.
    labels = torch.tensor([0, 1, 0, 1])

    assert expected_calibration_error(probabilities, labels) == pytest.approx(1.2 / 4)


def test_gaps_of_one_bin_cancel_and_gaps_of_two_do_not() -> None:
    labels = torch.tensor([0, 1])
    together = torch.tensor([[0.5, 0.5], [0.5, 0.5]])
    apart = torch.tensor([[0.5, 0.5], [0.9, 0.1]])

    assert expected_calibration_error(together, labels) == pytest.approx(0)
    assert expected_calibration_error(apart, labels) == pytest.approx((0.5 + 0.9) / 2)
