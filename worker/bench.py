"""Runs the cells of a bench in a child that stays for the next ones.

The child alone touches torch and the device. It keeps the backbone and the data of a run, so that a
cell costs what its method does; it ends when no cell comes for a while, or when this process does.
"""

import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import structlog

from app.core.bench_queue import BenchExchange
from app.core.settings import Settings, TuningSettings
from models.bench.message import Answer, BenchTask, Failure

log = structlog.get_logger(__name__)

COMMAND = (sys.executable, "-m", "worker.bench_run")


def answer_cell(message: str, settings: Settings, child: "BenchChild") -> bool:
    """Run the cell of a message and send the answer; False where it has to be handed back."""
    task = BenchTask.model_validate_json(message)
    exchange = BenchExchange(settings.queue, task.run)
    try:
        if not exchange.wanted():
            log.info("bench_not_wanted", run=task.run, number=task.number)
            return True
        answer = child.run(task)
        if answer is None:
            return False
        exchange.answer(answer.model_dump_json())
        log.info("bench_cell", run=task.run, cell=str(task.cell), failed=answer.failure is not None)
        return True
    finally:
        exchange.close()


class BenchChild:
    """The child, started when it is needed.

    Args:
        settings: its time limit for a cell, and how often to look around.
        stopping: says whether this worker was told to stop.
        command: the child's command line.
    """

    def __init__(
        self,
        settings: TuningSettings,
        *,
        stopping: Callable[[], bool] = lambda: False,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._settings, self._stopping, self._command = settings, stopping, command
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, task: BenchTask) -> Answer | None:
        """Return the child's answer, or one that says what became of it.

        None where the worker was told to stop first.
        """
        for _ in range(2):  # the first one may just have gone, having had no work
            answer = self._ask(task)
            if answer is not None or self._stopping():
                return answer
        return _failed(task, "did not answer")

    def stop(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _ask(self, task: BenchTask) -> Answer | None:
        """Return nothing where the child went in peace, or the worker was told to stop."""
        child = self._running()
        assert child.stdin is not None  # noqa: S101 - a pipe
        assert child.stdout is not None  # noqa: S101 - a pipe
        try:
            child.stdin.write(task.model_dump_json().encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            return self._ended(task)
        give_up_at = time.monotonic() + self._settings.time_limit_seconds
        while not select.select([child.stdout], [], [], self._settings.poll_seconds)[0]:
            if self._stopping():
                self.stop()
                return None
            if time.monotonic() > give_up_at:
                self.stop()
                return _failed(task, f"took over {self._settings.time_limit_seconds} seconds")
        line = child.stdout.readline()
        return Answer.model_validate_json(line) if line else self._ended(task)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.stop()
            # It ends when its standard input does: it cannot outlive this process.
            self._child = subprocess.Popen(  # noqa: S603 - our own program
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        return self._child

    def _ended(self, task: BenchTask) -> Answer | None:
        assert self._child is not None  # noqa: S101 - it was asked
        code = self._child.wait()
        self.stop()
        return None if code == 0 else _failed(task, f"ended with code {code}")


def _failed(task: BenchTask, what: str) -> Answer:
    failure = Failure(
        problem=f"The worker's process {what}.",
        fix="Its log says why; most often the memory ran out.",
    )
    return Answer(number=task.number, failure=failure)
