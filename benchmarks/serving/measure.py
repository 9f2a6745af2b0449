"""Percentiles, medians of runs, ratios, slopes, and what is held against a target."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of `values` do not exceed, interpolated; NaN of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return percentiles, mean, the largest value and how many there are."""
    count = len(values)
    return {
        **{name: percentile(values, share) for name, share in SHARES.items()},
        "mean": sum(values) / count if count else math.nan,
        "max": max(values, default=math.nan),
        "count": float(count),
    }


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each entry over runs; NaN where one of them is."""
    return {name: _median([run[name] for run in runs]) for name in runs[0]}


def _median(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else median(values)


def as_json(value: Any) -> Any:
    """Return `value` with null for what is not a finite number, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: as_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the least-squares line, in units of `values` per unit of `times`."""
    if len(times) < 2:
        return math.nan
    mean_time, mean_value = sum(times) / len(times), sum(values) / len(values)
    across = sum((time - mean_time) ** 2 for time in times)
    both = sum((t - mean_time) * (v - mean_value) for t, v in zip(times, values, strict=True))
    return both / across if across else math.nan


@dataclass(frozen=True)
class Check:
    """A figure and its target; `at_most` says which way is better."""

    name: str
    measured: float
    target: float
    unit: str = ""
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Say whether it is; a figure that is not a number never is."""
        return self.measured <= self.target if self.at_most else self.measured >= self.target

    def as_json(self) -> dict[str, Any]:
        """Return it for a results file."""
        return asdict(self) | {"met": self.met}
