"""`shotline bench --queue`: cells go to the workers, and their answers come back through Redis."""

from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from app.core.bench_queue import BenchExchange
from app.core.errors import Unavailable
from app.core.ids import new_id
from app.core.queue import BENCH, CeleryQueue
from app.core.settings import QueueSettings
from models.bench.cells import Cell
from models.bench.message import Answer, BenchTask, Plan
from models.bench.results import CellResult
from models.errors import Refused

if TYPE_CHECKING:
    from models.bench.runner import Executor

_WAIT_SECONDS = 5


def queued(plan: Plan, settings: QueueSettings) -> "Executor":
    """Return what runs cells on the workers that listen to the queue; results come as they do."""

    def execute(cells: Sequence[Cell]) -> Generator[tuple[Cell, list[CellResult]], None, None]:
        run = str(new_id())
        exchange = BenchExchange(settings, run)
        try:
            exchange.want()
            _send(plan, settings, run, cells)
            waiting = dict(enumerate(cells))
            while waiting:
                exchange.want()
                text = exchange.next_answer(_WAIT_SECONDS)
                answer = None if text is None else Answer.model_validate_json(text)
                # A message can be delivered twice; the second answer is the same.
                if answer is not None and answer.number in waiting:
                    cell = waiting.pop(answer.number)
                    yield cell, _rows(cell, answer)
        finally:
            with suppress(Unavailable):  # the keys go by themselves
                exchange.end()
            exchange.close()

    return execute


def _send(plan: Plan, settings: QueueSettings, run: str, cells: Sequence[Cell]) -> None:
    queue = CeleryQueue(settings)
    try:
        for number, cell in enumerate(cells):
            task = BenchTask(run=run, number=number, cell=cell, plan=plan)
            queue.send(BENCH, task.model_dump_json())
    except Exception as error:  # whatever the broker's client raises
        raise Unavailable(
            f"The cells could not be sent to the queue: {error}.",
            fix="See that Redis runs, and that SHOTLINE_QUEUE_URL names it.",
            field="queue",
        ) from error
    finally:
        queue.close()


def _rows(cell: Cell, answer: Answer) -> list[CellResult]:
    if answer.failure is None:
        return answer.rows
    raise Refused(f"{cell}: {answer.failure.problem}", fix=answer.failure.fix, field="queue")
