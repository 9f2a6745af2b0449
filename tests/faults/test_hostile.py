"""Hostile files, a few hundred: refused or truly good, in bounded time and memory."""

import random
from pathlib import Path

import pytest

from benchmarks.faults import hostile
from benchmarks.faults.corpus import corpus


def test_a_gateway_and_hostile_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = hostile.run(tmp_path, quick=True, report=print)
    assert found["requests"] > 300
    # Some of what was changed is still good, most is not.
    assert 0.1 < found["statuses"]["predict image 200"] / found["requests"] < 0.5
    broken = [check for check, held in found["checks"].items() if not held]
    assert not broken, (broken, found["broken"], found["slowest"], found["artifacts"])


def test_the_same_seed_makes_the_same_files() -> None:
    artifact = random.Random(1).randbytes(3000)
    few = [list(corpus(120, seed, [artifact])) for seed in (1, 1, 2)]
    assert few[0] == few[1]
    assert few[0] != few[2]
    assert {it.kind for it in few[0]} == {"image", "archive", "artifact"}
