"""The bare encoder, in a process of its own: decode and encode in a loop, and nothing else.

`python -m benchmarks.serving.bare PHOTOGRAPH…` reads commands as lines of JSON from standard input
and answers each with a line. `Bare` is the other end of it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from benchmarks.serving.simulation import ServiceTimes

if TYPE_CHECKING:
    from benchmarks.serving.engine import Engine, Facts

_ROOT = Path(__file__).parents[2]


class Bare:
    """The process; `close` ends it.

    Args:
        environment: the gateway's.
        photographs: files.
    """

    def __init__(self, environment: Mapping[str, str], photographs: Sequence[Path]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "benchmarks.serving.bare", *map(str, photographs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            cwd=_ROOT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()  # it may be at work still, where something else failed
        self._process.communicate()

    def _ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The bare encoder ended; its own words are on standard error.")
        return json.loads(line)

    def facts(self) -> "Facts":
        """Return what the engine is."""
        from benchmarks.serving.engine import Facts  # noqa: PLC0415 - imports torch

        return Facts(*self._ask(do="facts"))

    def throughput(self, batch: int, seconds: float, *, decode_workers: int, ahead: bool) -> float:
        """Return images a second: a batch is decoded by all workers, then encoded, and so on.

        With `ahead`, as in the gateway, two batches are with the encoder at a time and a third is
        decoded meanwhile.
        """
        command = {"batch": batch, "seconds": seconds, "workers": decode_workers, "ahead": ahead}
        return float(self._ask(do="throughput", **command))

    def service_times(self, max_batch: int, *, samples: int) -> ServiceTimes:
        """Return measured times of decoding and of encoding every size of batch, each alone.

        `samples` of each size, and ten times as many of decoding.
        """
        found = self._ask(do="times", max_batch=max_batch, samples=samples)
        encode = {int(size): times for size, times in found["encode"].items()}
        return ServiceTimes(found["decode"], encode)


def _throughput(
    engine: "Engine",
    images: Sequence[bytes],
    *,
    batch: int,
    seconds: float,
    workers: int,
    ahead: bool,
) -> float:
    endless, done = cycle(images), 0
    with ThreadPoolExecutor(workers) as pool:

        def ask() -> list[Future[Any]]:
            return [pool.submit(engine.decode, data) for data in islice(endless, batch)]

        if not ahead:
            start = time.perf_counter()
            while time.perf_counter() - start < seconds:
                engine.encode([one.result() for one in ask()])
                done += batch
            return done / (time.perf_counter() - start)

        pending, begun = ask(), engine.begin([one.result() for one in ask()])
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            pixels, pending = [one.result() for one in pending], ask()
            following = engine.begin(pixels)
            begun()
            begun, done = following, done + batch
        took = time.perf_counter() - start  # without the last batch, which is not counted
        begun()
        return done / took


def _times(
    engine: "Engine", images: Sequence[bytes], max_batch: int, samples: int
) -> dict[str, Any]:
    endless = cycle(images)
    decode = [_seconds(engine.decode, data) for data in islice(endless, 10 * samples)]
    pixels = [engine.decode(data) for data in islice(endless, max_batch)]
    encode: dict[int, list[float]] = {}
    for size in range(1, max_batch + 1):
        engine.encode(pixels[:size])  # the first batch of a size sets up what later ones use
        encode[size] = [_seconds(engine.encode, pixels[:size]) for _ in range(samples)]
    return {"decode": decode, "encode": encode}


def _seconds(action: Any, argument: Any) -> float:
    start = time.perf_counter()
    action(argument)
    return time.perf_counter() - start


def main(photographs: Sequence[str]) -> None:
    """Answer commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engine and its libraries print is no answer
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `shotline serve` does
    from benchmarks.serving.engine import Engine  # noqa: PLC0415 - imports torch
    from models.memory import keep_freed_memory  # noqa: PLC0415

    keep_freed_memory()  # as the gateway does
    images = [Path(name).read_bytes() for name in photographs]
    engine = Engine()
    engine.encode([engine.decode(data) for data in islice(cycle(images), 16)])
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "facts":
            answer: Any = engine.facts(images[0])
        elif command["do"] == "throughput":
            how = {name: value for name, value in command.items() if name != "do"}
            answer = _throughput(engine, images, **how)
        else:
            answer = _times(engine, images, command["max_batch"], command["samples"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
