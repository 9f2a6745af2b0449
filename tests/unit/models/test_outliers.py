"""What is no image to decide on: limits by hand, photographs in the dark, calibration."""

import numpy as np
import pytest

from models.trust.calibration import calibrated, calibration, fit_temperature
from models.trust.evidence import Evidence, softmax
from models.trust.outliers import (
    Outliers,
    energy_scale,
    excess,
    limit_of,
    outlier_rule,
    scaled,
    scales_of,
)
from models.trust.photograph import PhotographStatistics, photograph_statistics
from models.trust.rule import Limit


def noise(level: float, spread: float, size: int = 64) -> np.ndarray:
    grey = np.random.default_rng(0).normal(level, spread, (size, size)).clip(0, 255)
    return np.tile(grey.astype(np.uint8), (3, 1, 1))


def test_the_statistics_of_a_photograph_by_hand() -> None:
    flat = photograph_statistics(np.full((3, 8, 8), 100, dtype=np.uint8))
    assert flat == PhotographStatistics(100, 0, 0, 0)
    half = np.zeros((3, 4, 4), dtype=np.uint8)
    half[:, :, 2:] = 255
    seen = photograph_statistics(half)
    assert (seen.luminance, seen.contrast, seen.saturated) == (127.5, 127.5, 0.5)
    assert seen.sharpness == pytest.approx(255)  # one step beside every inner pixel
    red = np.zeros((3, 4, 4), dtype=np.uint8)
    red[0] = 200
    assert photograph_statistics(red).luminance == 50


def test_a_limit_is_what_so_many_reach() -> None:
    values = np.arange(100.0)  # the second largest: 2 of 101
    assert limit_of(values, 0.0) == Limit(middle=49.5, limit=98.0)


def test_a_limit_of_few_is_further_out_than_the_largest() -> None:
    limits = [limit_of(np.linspace(0, 1, n), 0.0).limit for n in (6, 10, 20, 48)]
    assert limits == sorted(limits, reverse=True)
    assert limits[0] > 1.9
    assert limits[-1] == pytest.approx(1, abs=0.01)


def test_values_that_are_all_the_same_leave_room() -> None:
    limit = limit_of(np.full(30, 0.4), 0.02)
    assert (limit.middle, limit.limit) == pytest.approx((0.4, 0.42))
    assert excess(0.41, limit) == pytest.approx(0.5)
    assert energy_scale(np.full(5, 3.0)) == (3.0, 0.05)


@pytest.fixture
def outliers() -> Outliers:
    """A dark class and a bright one, each with twenty photographs of usual detail."""
    rng = np.random.default_rng(0)
    statistics = np.array([
        [level + rng.normal(0, 3), 20 + rng.normal(0, 1), 30 + rng.normal(0, 1), 0]
        for level in (60, 180) for _ in range(20)
    ])  # fmt: skip
    scales = scales_of(statistics, np.repeat([0, 1], 20))
    rule = outlier_rule(
        distances=np.linspace(0.1, 0.3, 40),
        energies=np.linspace(-2, 2, 40),
        photographs=np.linspace(0, 2, 40),
        energy_scales=[(-5.0, 1.0), (-5.0, 1.0)],
        photograph_scales=scales,
    )
    return Outliers(rule, scaled(statistics, scales).astype(np.float16))


USUAL = Evidence(np.array([5.0, 0.0]), np.array([[5.0, 0.0], [5.0, 0.0]]), 0.8)


@pytest.mark.parametrize(
    ("statistics", "reason"),
    [
        ((60, 20, 30, 0), None),
        ((180, 20, 30, 0), None),
        ((120, 20, 30, 0), "photograph_bright"),  # between the two: like neither
        ((4, 1, 2, 0), "photograph_dark"),
        ((240, 20, 30, 0.6), "photograph_bright"),
        ((60, 20, 30, 0.6), "photograph_bright"),
        ((60, 18, 4, 0), "photograph_blurred"),
        ((60, 60, 120, 0), "photograph_unusual"),
    ],
)
def test_photographs(outliers: Outliers, statistics: tuple[float, ...], reason: str | None) -> None:
    found = outliers.unlike(USUAL, PhotographStatistics(*statistics))
    if statistics[0] == 120:
        assert found in {"photograph_bright", "photograph_dark"}
    else:
        assert found == reason


def test_distance_and_energy(outliers: Outliers) -> None:
    usual = PhotographStatistics(60, 20, 30, 0)
    assert outliers.unlike(USUAL, usual) is None
    assert outliers.unlike(USUAL._replace(nearest=0.5), usual) == "unlike_training_images"
    unsure = USUAL._replace(fold_logits=np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert outliers.unlike(unsure, usual) == "unlike_training_images"
    assert outliers.unlike(USUAL._replace(nearest=0.5), None) == "unlike_training_images"
    assert outliers.unlike(Evidence(np.zeros(2)), None) is None
    assert outliers.strangeness(USUAL, usual) < 1 < outliers.strangeness(unsure, usual)


def test_a_temperature_that_undoes_another() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 3))
    labels = np.array([rng.choice(3, p=row) for row in softmax(logits)])
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=0.1)
    assert fit_temperature(4 * logits, labels) == pytest.approx(4, rel=0.1)
    before = calibration(calibrated(4 * logits, 1.0), labels)
    after = calibration(calibrated(4 * logits, 4.0), labels)
    assert after.ece < 0.03 < before.ece


def test_reliability_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55], [1.0, 0.0]])
    found = calibration(probabilities, np.array([0, 1, 1, 0]))
    assert [part.count for part in found.bins] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    assert found.bins[9].accuracy == pytest.approx(2 / 3)
    assert found.bins[9].confidence == pytest.approx((0.95 + 0.95 + 1) / 3)
    assert (found.bins[9].low, found.bins[9].high) == (0.9, 1.0)
    # Of 15 ranges: 0.55 alone; 0.95, 0.95 and 1.0 together.
    assert found.ece == pytest.approx((0.45 + abs(2 - 2.9)) / 4)
