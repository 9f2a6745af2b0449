"""The paired bootstrap, against values by hand."""

import numpy as np
import pytest

from models.evaluation.paired import paired_difference

LABELS = np.repeat([0, 1], 20)
GROUPS = [f"part {number}" for number in range(40)]


def test_the_same_answers_differ_by_nothing() -> None:
    right = np.arange(40) % 3 > 0
    found = paired_difference(right, right, LABELS, GROUPS, seed=0)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_difference_is_of_means_of_classes() -> None:
    ours, theirs = np.ones(5, dtype=bool), np.array([True, True, True, True, False])
    labels = np.array([0, 0, 0, 0, 1])
    found = paired_difference(ours, theirs, labels, list("abcde"), seed=0)
    assert found.value == 0.5  # the one image of the second class counts as much as four


def test_a_clear_difference_and_one_within_chance() -> None:
    worse = np.arange(40) % 2 == 0
    found = paired_difference(np.ones(40, dtype=bool), worse, LABELS, GROUPS, seed=0)
    assert found.value == 0.5
    assert 0.3 < found.low < found.value < found.high < 0.7
    once = np.arange(40) != 7
    found = paired_difference(once, np.ones(40, dtype=bool), LABELS, GROUPS, seed=0)
    assert found.low < found.value == pytest.approx(-0.025)
    assert found.high == 0


def test_images_of_one_part_are_drawn_together() -> None:
    worse = np.repeat([True, False, True, False], 10)
    alone = paired_difference(np.ones(40, dtype=bool), worse, LABELS, GROUPS, seed=0)
    parts = [f"part {number // 5}" for number in range(40)]
    together = paired_difference(np.ones(40, dtype=bool), worse, LABELS, parts, seed=0)
    assert together.value == alone.value
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_a_seed_gives_the_same_interval() -> None:
    worse = np.arange(40) % 5 > 0
    sure = np.ones(40, dtype=bool)
    draws = [paired_difference(sure, worse, LABELS, GROUPS, seed=seed) for seed in (1, 1)]
    assert draws[0] == draws[1]
