"""Jobs pause while predictions are under way on the same machine, and not for ever."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.core.precedence import UnderWay
from app.core.settings import Settings
from tests.integration.services import wait_for
from tests.integration.serving import predictions_of

# Counts as fast as it can, and says how far it is whenever a line comes in.
_CHILD = """
import sys, threading
from pathlib import Path
from app.core.precedence import UnderWay
from worker.pauses import pause_during
pause_during(UnderWay(Path(sys.argv[1])))
count = 0
def answer():
    for _ in sys.stdin:
        print(count, flush=True)
threading.Thread(target=answer, daemon=True).start()
print("ready", flush=True)
while True:
    count += 1
"""


class Child:
    """A process that works, and pauses as jobs do."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert self._ask("") == "ready"

    def done(self, seconds: float) -> int:
        """Return how much it does within `seconds`."""
        before = int(self._ask("\n"))
        time.sleep(seconds)
        return int(self._ask("\n")) - before

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home/predictions-under-way"


@pytest.fixture
def child(path: Path) -> Iterator[Child]:
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def test_a_child_pauses_while_predictions_are_under_way_and_never_for_long(
    child: Child, path: Path
) -> None:
    predictions = UnderWay(path)
    alone = child.done(0.5)
    over = threading.Event()

    def decide() -> None:  # on a line without gaps
        while not over.wait(0.01):
            predictions.begin()

    line = threading.Thread(target=decide)
    line.start()
    try:
        beside = min(child.done(0.5) for _ in range(3))
    finally:
        over.set()
        line.join()
    # A quarter of the time is left to it, more or less.
    assert 0 < beside < 0.7 * alone
    predictions.end()
    wait_for(lambda: child.done(0.2) > 0.4 * beside, "the child at work")


def test_what_a_killed_gateway_said_is_believed_for_a_moment(path: Path) -> None:
    predictions = UnderWay(path)
    assert not predictions.now()
    predictions.begin()
    assert predictions.now()
    assert UnderWay(path).now()
    wait_for(lambda: not predictions.now(), "the end of belief", seconds=5)
    predictions.begin()
    predictions.end()
    assert not predictions.now()


def test_the_stamp_of_another_boot_says_nothing(path: Path) -> None:
    predictions = UnderWay(path)
    path.write_bytes((time.monotonic_ns() + 10**15).to_bytes(8, "little"))
    assert not predictions.now()


def test_a_folder_that_cannot_be_written_to_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert UnderWay.opened(tmp_path / "file/predictions-under-way") is None


def test_a_gateway_says_when_it_decides(app: FastAPI, settings: Settings) -> None:
    slots, seen = predictions_of(app).slots, UnderWay(settings.precedence_file)
    with slots.taken(2):
        with slots.taken(1):
            assert seen.now()
        assert seen.now()
    assert not seen.now()
