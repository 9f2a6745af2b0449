"""Clients that go on asking whatever happens, and note what they were answered."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

import httpx2

from app.registry.service import PRODUCTION
from benchmarks.faults.stage import PNG, Box, Line
from benchmarks.serving.measure import percentile
from tests.integration import tiny

_PROBLEM = "application/problem+json"


class Answer(NamedTuple):
    """What one request got; status 0 where there was no answer.

    Attributes:
        at: of `time.monotonic`, when it was sent.
        seconds: until the answer was there.
        honest: where it is an error, it says so as problem+json, a 503 with Retry-After.
    """

    at: float
    seconds: float
    status: int
    honest: bool


@dataclass
class Answers:
    """The answers of one kind of request, in their order."""

    all: list[Answer] = field(default_factory=list)

    def since(self, start: float, end: float) -> "Answers":
        """Return those to requests that were sent in between."""
        return Answers([one for one in self.all if start <= one.at < end])

    def summary(self) -> dict[str, Any]:
        """Return counts by status, and how long those of success took."""
        good = [1000 * one.seconds for one in self.all if one.status < 300 and one.status]
        return {
            "statuses": dict(sorted(Counter(str(one.status) for one in self.all).items())),
            "p50_ms": round(percentile(good, 0.5), 1),
            "p99_ms": round(percentile(good, 0.99), 1),
            "max_ms": round(max(good, default=float("nan")), 1),
        }


@dataclass
class Seen:
    """What the clients were told.

    Attributes:
        predictions: the ids that they were answered by, in no order.
        uploads: the sha256 of what was answered to be stored.
        moved: the reasons given with the moves that were answered.
    """

    answers: dict[str, Answers] = field(default_factory=dict)
    predictions: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)


class Clients:
    """One that predicts, several times a second, and one that writes; each waits for its answers.

    Args:
        box: whose key they have.
        address: of the gateway.
        line: asked for predictions, and moved between its versions.
        uploads: the address of a project that takes uploads of the class `good`.
        rate: predictions a second.
    """

    def __init__(self, box: Box, address: str, line: Line, uploads: str, *, rate: float) -> None:
        self._box, self._address, self._line, self._uploads = box, address, line, uploads
        self._rate = rate
        self._over = threading.Event()
        self.seen = Seen({name: Answers() for name in ("predict", "upload", "promote", "read")})

    @contextmanager
    def busy(self) -> Iterator[Seen]:
        """Have them ask while the context is open."""
        threads = [
            threading.Thread(target=self._repeat, args=(act, pause))
            for act, pause in ((self._predict, 1 / self._rate), (self._write, 0.05))
        ]
        for thread in threads:
            thread.start()
        try:
            yield self.seen
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _repeat(self, act: Callable[[httpx2.Client, int], None], pause: float) -> None:
        number = 0
        with self._box.client(self._address) as client:
            while not self._over.wait(pause):
                act(client, number)
                number += 1

    def _predict(self, client: httpx2.Client, number: int) -> None:
        body = tiny.photograph(number % 3, number % 100)
        path = f"{self._line.path}/predict"
        found = self._send("predict", client, "POST", path, content=body, headers=PNG)
        if found is not None:
            self.seen.predictions.append(found["prediction_id"])

    def _write(self, client: httpx2.Client, number: int) -> None:
        data, reason = tiny.photograph(0, 1000 + number), f"move {number}"
        files, path = [("files", ("a.png", data))], f"{self._uploads}/images"
        if self._send("upload", client, "POST", path, files=files, data={"label": "good"}):
            self.seen.uploads.append(sha256(data).hexdigest())
        aliases = self._send("read", client, "GET", f"{self._line.path}/aliases")
        present = 0 if aliases is None else aliases[0]["version"]
        body = {"version": present % self._line.versions + 1, "reason": reason}
        path = f"{self._line.path}/aliases/{PRODUCTION}"
        promoted = self._send("promote", client, "PUT", path, json=body)
        if promoted and present:  # else it may have been there already
            self.seen.moved.append(reason)

    def _send(
        self, kind: str, client: httpx2.Client, method: str, path: str, **body: Any
    ) -> Any | None:
        """Return the answer as JSON where it is one of success."""
        started = time.monotonic()
        try:
            response = client.request(method, path, **body)
        except httpx2.TransportError:
            status, honest = 0, False
        else:
            status, honest = response.status_code, is_honest(response)
        took = time.monotonic() - started
        self.seen.answers[kind].all.append(Answer(started, took, status, honest))
        return response.json() if 200 <= status < 300 else None


def is_honest(response: httpx2.Response) -> bool:
    """Say whether an error is told as problem+json, and a 503 when to come again."""
    if response.status_code < 400:
        return True
    told = response.headers["content-type"] == _PROBLEM
    return told and (response.status_code != 503 or int(response.headers["retry-after"]) > 0)
