"""The child that stays: children of a few lines stand in for it."""

import sys
import time
from pathlib import Path

import pytest

from app.core.settings import TuningSettings
from models.bench.cells import list_cells
from models.bench.message import BackboneRef, BenchTask, Plan
from worker.bench import BenchChild

ANSWERS = "import sys\nfor line in sys.stdin: print('{\"number\": 7}', flush=True)"


@pytest.fixture
def task() -> BenchTask:
    (cell,) = list_cells(["parts"], "few-shot", ["zero-shot"], [1], [1.0], [1])
    backbone = BackboneRef(
        source="starter", device="cpu", precision="fp32", offline=True, digest="sha256:1"
    )
    plan = Plan(sources=[], digests={}, backbone=backbone)
    return BenchTask(run="r", number=7, cell=cell, plan=plan)


def child(script: str, *arguments: object, stop: Path | None = None, limit: int = 60) -> BenchChild:
    return BenchChild(
        TuningSettings(poll_seconds=0.05, time_limit_seconds=limit),
        stopping=lambda: stop is not None and stop.exists(),
        command=(sys.executable, "-c", script, *map(str, arguments)),
    )


def test_one_child_answers_all(task: BenchTask, tmp_path: Path) -> None:
    log = tmp_path / "starts"
    running = child(f"open({str(log)!r}, 'a').write('x')\n{ANSWERS}")
    for _ in range(3):
        answer = running.run(task)
        assert answer is not None
        assert (answer.number, answer.failure) == (7, None)
    assert log.read_text() == "x"
    running.stop()


def test_a_child_that_went_in_peace_is_replaced(task: BenchTask) -> None:
    running = child("input()\nprint('{\"number\": 7}', flush=True)")
    for _ in range(2):
        answer = running.run(task)
        assert answer is not None
        assert answer.failure is None
        time.sleep(0.2)
    running.stop()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("input(); raise SystemExit(3)", "ended with code 3"),
        ("input()", "did not answer"),
    ],
)
def test_a_child_that_does_not_answer(task: BenchTask, script: str, words: str) -> None:
    running = child(script)
    answer = running.run(task)
    assert answer is not None
    assert answer.number == 7
    assert answer.failure is not None
    assert words in answer.failure.problem
    running.stop()


def test_a_cell_that_takes_too_long(task: BenchTask) -> None:
    answer = child("import time; time.sleep(60)", limit=1).run(task)
    assert answer is not None
    assert answer.failure is not None
    assert "took over 1 seconds" in answer.failure.problem


def test_a_worker_that_is_told_to_stop_hands_the_cell_back(task: BenchTask, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    started = time.monotonic()
    assert child("import time; time.sleep(60)", stop=stop).run(task) is None
    assert time.monotonic() - started < 10
