"""Figures worked out by hand."""

import math

import pytest

from benchmarks.serving.measure import Check, as_json, medians, percentile, slope, spread


def test_a_percentile_lies_between_its_neighbours() -> None:
    values = [40.0, 10.0, 30.0, 20.0]

    assert percentile(values, 0.5) == 25.0
    assert percentile(values, 0.0) == 10.0
    assert percentile(values, 1.0) == 40.0
    assert percentile([7.0], 0.99) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_a_spread_counts_and_names_the_largest() -> None:
    found = spread([float(value) for value in range(1, 102)])

    assert found == {
        "p50": 51.0,
        "p90": 91.0,
        "p99": 100.0,
        "p99.9": pytest.approx(100.9),
        "mean": 51.0,
        "max": 101.0,
        "count": 101.0,
    }


def test_the_median_of_runs_is_taken_entry_by_entry() -> None:
    runs = [{"a": 1.0, "b": 9.0}, {"a": 3.0, "b": 7.0}, {"a": 2.0, "b": 8.0}]

    assert medians(runs) == {"a": 2.0, "b": 8.0}
    assert math.isnan(medians([{"a": 1.0}, {"a": math.nan}, {"a": 1.0}])["a"])


def test_json_has_null_for_what_is_no_number() -> None:
    assert as_json({"a": math.nan, "b": [1.5, math.inf], "c": ("x", 2)}) == {
        "a": None,
        "b": [1.5, None],
        "c": ["x", 2],
    }


def test_a_slope_is_that_of_the_line_through_the_points() -> None:
    assert slope([0.0, 1.0, 2.0], [5.0, 7.0, 9.0]) == pytest.approx(2.0)
    assert slope([0.0, 1.0, 2.0], [1.0, 4.0, 1.0]) == pytest.approx(0.0)
    assert math.isnan(slope([1.0], [1.0]))


@pytest.mark.parametrize(
    ("measured", "at_most", "met"),
    [(1.2, True, True), (1.3, True, False), (1.2, False, True), (1.1, False, False)],
)
def test_a_check_knows_which_way_is_better(measured: float, at_most: bool, met: bool) -> None:
    assert Check("ratio", measured, 1.2, at_most=at_most).met is met


def test_what_is_not_a_number_meets_no_target() -> None:
    assert not Check("ratio", math.nan, 1.2).met
    assert not Check("ratio", math.nan, 1.2, at_most=False).met
