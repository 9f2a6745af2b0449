"""The child that runs cells of a bench: a line of JSON in, a line of JSON out.

`python -m worker.bench_run`, started by `worker.bench`. Knows nothing of Celery.
"""

import os
import queue
import sys
import threading

from app.core.settings import Settings
from models.bench.message import BenchTask
from models.bench.remote import RemoteBench
from models.features import FolderFeatureStore

# Without work for so long, the memory is worth more to others.
IDLE_SECONDS = 60.0


def main() -> None:
    """Answer until no work comes for a while; end at once with whoever holds the input open."""
    # Answers alone go to standard output, whatever a library prints.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = Settings()
    os.nice(settings.tuning.nice)
    bench = RemoteBench(FolderFeatureStore(settings.feature_folder))
    tasks = _tasks()
    while True:
        try:
            task = tasks.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return
        print(bench.answer(task).model_dump_json(), file=answers, flush=True)


def _tasks() -> "queue.Queue[BenchTask]":
    tasks: queue.Queue[BenchTask] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            tasks.put(BenchTask.model_validate_json(line))
        os._exit(0)

    threading.Thread(target=read, name="supervisor", daemon=True).start()
    return tasks


if __name__ == "__main__":
    main()
