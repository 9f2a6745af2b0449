"""Mixed load on a gateway and a worker, and how growth is told from noise."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.faults import soak
from tests.faults.scenarios import run_small


def test_a_mixed_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(soak, "_QUICK_SECONDS", 15.0)
    monkeypatch.setattr(soak, "_ROOT", tmp_path)
    found = run_small(soak)
    kinds = {reply.partition(" ")[0] for reply in found["answers"]}
    assert kinds >= {"predict", "upload", "batch", "export", "promote", "delete"}
    assert (tmp_path / "build/faults/soak_memory.svg").exists()


@pytest.mark.parametrize(
    ("figure", "grows"),
    [
        (lambda n: 100.0, False),
        (lambda n: 100.0 + 3 * math.sin(n), False),  # up and down
        (lambda n: 100.0 + 5 * (n > 20), False),  # a step while it warms up
        (lambda n: 100.0 - n / 10, False),
        (lambda n: 100.0 + n / 10 + 3 * math.sin(n), True),
        (lambda n: 20.0 + n // 30, True),  # a file that stays open every five minutes
    ],
)
def test_growth_is_told_from_noise(figure: Callable[[int], float], grows: bool) -> None:
    """Half an hour, looked at every ten seconds, of which ten minutes are a warm-up."""
    times = [10.0 * n for n in range(180)]
    trend = soak._trend(times, [figure(n) for n in range(180)], warm=600)
    assert trend["grows"] is grows
    assert trend["low"] <= trend["per_hour"] <= trend["high"]
