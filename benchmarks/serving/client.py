"""Runs the load generator beside us, and reads what it saw."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.serving.load import Plan

_ROOT = Path(__file__).parents[2]


class Sample(NamedTuple):
    """A request; times are of `time.monotonic`, which all processes of a machine share.

    Attributes:
        due: when it was to be sent; in a closed loop when it was.
        sent: when it was.
        done: when the answer was there.
        status: of HTTP; 0 where there was no answer.
        path: which of the plan's.
        body: which of the plan's.
    """

    due: float
    sent: float
    done: float
    status: int
    path: int
    body: int

    @property
    def ms(self) -> float:
        """The latency, waiting counted."""
        return 1000 * (self.done - self.due)


@dataclass(frozen=True)
class Seen:
    """What a load generator saw.

    Attributes:
        plan: what it was asked for.
        begun: when, of `time.monotonic`.
        samples: every request, in the order of the answers.
        answers: the predictions beside them, where they were collected.
        cpu_seconds: of the generator.
    """

    plan: Plan
    begun: float
    samples: Sequence[Sample]
    answers: Sequence[dict[str, Any] | None]
    cpu_seconds: float

    @cached_property
    def counted(self) -> list[Sample]:
        """The requests that were due after the warm-up."""
        start = self.begun + self.plan.warmup
        return [sample for sample in self.samples if sample.due >= start]

    def with_status(self, status: int) -> list[Sample]:
        """Return the counted requests that were answered so."""
        return [sample for sample in self.counted if sample.status == status]

    @property
    def latencies(self) -> list[float]:
        """Milliseconds of the counted requests that were answered by 200."""
        return [sample.ms for sample in self.with_status(200)]

    @property
    def failures(self) -> int:
        """How many counted requests were not answered by 200."""
        return len(self.counted) - len(self.with_status(200))

    @property
    def throughput(self) -> float:
        """Answers of 200 a second, of those that came between warm-up and end."""
        start = self.begun + self.plan.warmup
        end = start + self.plan.seconds
        done = [s for s in self.samples if s.status == 200 and start <= s.done < end]
        return len(done) / self.plan.seconds

    def cores(self) -> float:
        """Return how many cores the generator itself took."""
        return self.cpu_seconds / (self.plan.warmup + self.plan.seconds)


class Load:
    """A load generator under way.

    Raises:
        RuntimeError: it failed; its own words are on standard error.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
        )
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.write(plan.as_json())
        self._process.stdin.close()
        self._process.stdin = None

    def result(self) -> Seen:
        """Wait for its end and return what it saw."""
        output, _ = self._process.communicate()
        if self._process.returncode != 0:
            raise RuntimeError(f"The load generator ended with {self._process.returncode}.")
        read = json.loads(output)
        samples = [Sample(*row) for row in read["rows"]]
        return Seen(self._plan, read["begun"], samples, read["answers"], read["cpu_seconds"])


def send(plan: Plan) -> Seen:
    """Run a load generator to its end."""
    return Load(plan).result()
