"""Splits: a group on one side, every class on both."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.evaluation.splits import cross_validation_folds, draw_shots


@st.composite
def labelled_groups(draw: st.DrawFn) -> tuple[list[int], list[str]]:
    """Draw labels and groups; every class has at least two groups of one to five images."""
    labels, groups = [], []
    for label in range(draw(st.integers(2, 5))):
        for number, size in enumerate(draw(st.lists(st.integers(1, 5), min_size=2, max_size=6))):
            labels += [label] * size
            groups += [f"{label}.{number}"] * size
    return labels, groups


@given(labelled_groups(), st.integers(2, 6), st.integers(0, 2**63 - 1))
def test_folds(data: tuple[list[int], list[str]], folds: int, seed: int) -> None:
    labels, groups = data
    pairs = cross_validation_folds(labels, groups, folds, seed)

    assert 2 <= len(pairs) <= folds
    assert sorted(index for _, test in pairs for index in test) == list(range(len(labels)))
    for train, test in pairs:
        assert sorted(train + test) == list(range(len(labels)))
        assert not {groups[index] for index in train} & {groups[index] for index in test}
        assert {labels[index] for index in train} == set(labels)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=8, max_size=40),
    st.integers(2, 6),
    st.integers(0, 99),
)
def test_a_part_that_shows_several_classes_stays_on_one_side(
    pairs: list[tuple[int, int]], folds: int, seed: int
) -> None:
    labels, groups = [label for label, _ in pairs], [f"part {part}" for _, part in pairs]
    parts = {
        label: {g for g, other in zip(groups, labels, strict=True) if other == label}
        for label in labels
    }
    assume(max(len(members) for members in parts.values()) > 1)

    made = cross_validation_folds(labels, groups, folds, seed)
    assert sorted(index for _, test in made for index in test) == list(range(len(labels)))
    for train, test in made:
        assert sorted(train + test) == list(range(len(labels)))
        assert not {groups[index] for index in train} & {groups[index] for index in test}

    drawn, left = draw_shots(labels, groups, 2, seed)
    assert not {groups[index] for index in drawn} & {groups[index] for index in left}


def test_folds_are_stratified() -> None:
    labels = [0] * 40 + [1] * 8

    for _, test in cross_validation_folds(labels, [str(i) for i in range(48)], 4, seed=3):
        assert Counter(labels[index] for index in test) == {0: 10, 1: 2}


def test_no_more_folds_than_the_largest_class_has_groups() -> None:
    labels, groups = [0, 0, 0, 1, 1], ["a", "b", "c", "d", "e"]

    assert len(cross_validation_folds(labels, groups, 10, seed=0)) == 3


def test_folds_are_their_seeds() -> None:
    labels, groups = [0, 1] * 10, [str(i) for i in range(20)]
    one, same, other = (cross_validation_folds(labels, groups, 4, seed) for seed in (0, 0, 1))

    assert one == same
    assert one != other


@given(labelled_groups(), st.integers(1, 8), st.integers(0, 2**63 - 1))
def test_shots(data: tuple[list[int], list[str]], shots: int, seed: int) -> None:
    labels, groups = data
    drawn, left = draw_shots(labels, groups, shots, seed)

    counts = Counter(labels)
    assert Counter(labels[index] for index in drawn) == {
        label: min(shots, count) for label, count in counts.items()
    }
    assert drawn == sorted(set(drawn))
    used = {groups[index] for index in drawn}
    assert left == [index for index in range(len(labels)) if groups[index] not in used]


@pytest.mark.parametrize("change", [{}, {"seed": 1}])
def test_shots_are_their_seeds(change: dict[str, Any]) -> None:
    labels, groups = [0, 1] * 10, [str(i) for i in range(20)]
    first = draw_shots(labels, groups, shots=3, seed=0)

    assert (draw_shots(labels, groups, **({"shots": 3, "seed": 0} | change)) == first) == (
        not change
    )
