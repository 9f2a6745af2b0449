"""PostgreSQL drops its connections, restarts, and is away for half a minute.

A gateway and a worker are at work on it, and clients go on asking: predictions are answered all the
time, what writes says 503 and when to come again, and nothing that was answered is lost.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import httpx2
from sqlalchemy import create_engine, select, text

from app.core.tables import AliasMove, Image, PredictionRecord
from benchmarks.faults.__main__ import Report
from benchmarks.faults.clients import Clients, Seen
from benchmarks.faults.stage import (
    Box,
    Gateway,
    Line,
    counters,
    faults,
    make_box,
    wait_until,
)
from benchmarks.serving.measure import as_json
from tests.integration import services, tiny
from tests.integration.files import zip_of
from tests.integration.stoppable import Postgres

_DROP = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
)
_MANY = 1000
# Steps that keep a worker busy for some seconds.
_STEPS = 200
_QUEUE_OF_RECORDS = "PREDICTION_RECORD_QUEUE"
_LOST = "shotline_prediction_records_lost_total"


class Servers:
    """A Redis and, where it is wanted, a PostgreSQL, each to be stopped and started again."""

    def __init__(self, stack: ExitStack, *, postgres: bool = True) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="shotline-r-"))
        stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        if postgres:
            self.postgres = Postgres()
            stack.callback(self.postgres.remove)
        self._redis = ExitStack()
        stack.callback(self.stop_redis)
        self.start_redis()

    def start_redis(self) -> None:
        """Start Redis, empty, on the same socket."""
        self._redis = ExitStack()
        self.redis_url = self._redis.enter_context(services.redis_server(self._folder))

    def stop_redis(self) -> None:
        """Stop Redis."""
        self._redis.close()

    def drop_connections(self, seconds: float) -> None:
        """End every client's session, again and again."""
        engine = create_engine(self.postgres.url, isolation_level="AUTOCOMMIT")
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            with engine.connect() as connection:
                connection.execute(text(_DROP))
            time.sleep(0.2)
        engine.dispose()

    def restart(self, seconds: float) -> None:
        """Stop PostgreSQL at once, and start it after so long."""
        with self.postgres.stopped():
            time.sleep(seconds)

    def all_away(self, seconds: float) -> None:
        """Stop PostgreSQL and Redis, and start them after so long."""
        with self.postgres.stopped():
            self.stop_redis()
            time.sleep(seconds)
        self.start_redis()


class Fault(NamedTuple):
    """What is done to the servers, and for how many seconds."""

    name: str
    bring_about: Callable[[Servers, float], None]
    seconds: float
    quick_seconds: float


FAULTS = (
    Fault("connections dropped five times a second", Servers.drop_connections, 20, 2),
    Fault("restart", Servers.restart, 0, 0),
    Fault("away for half a minute", Servers.restart, 30, 4),
)


def run(home: Path, *, quick: bool, report: Report) -> dict[str, Any]:
    """See `benchmarks.faults.__main__.Scenario`."""
    return stormed(home, FAULTS, quick=quick, report=report, record_queue=10_000)


def stormed(
    home: Path,
    chosen: Sequence[Fault],
    *,
    quick: bool,
    report: Report,
    record_queue: int,
    rate: float = 20.0,
) -> dict[str, Any]:
    """Bring faults about one after the other, with a gateway, a worker and clients at work.

    Args:
        home: an empty folder.
        chosen: the faults.
        quick: in small.
        report: told how it goes.
        record_queue: so many predictions wait for the database at most.
        rate: predictions a second.
    """
    with ExitStack() as stack:
        servers = Servers(stack)
        variables = {_QUEUE_OF_RECORDS: str(record_queue), "TUNING_REAP_SECONDS": "1"}
        box = make_box(home, servers.postgres.url, servers.redis_url, variables=variables)
        line = box.add_line("line 3")
        gateway = stack.enter_context(running(box, home))
        stack.enter_context(services.worker(box.environment, home / "worker.log"))
        with box.client(gateway.address) as client:
            uploads = make_project(client, "uploads")
            clients = Clients(box, gateway.address, line, uploads, rate=rate)
            tunings: list[str] = []
            found: list[dict[str, Any]] = []
            with clients.busy() as seen:
                for fault in chosen:
                    if not (quick and tunings):  # each takes some seconds to load PyTorch alone
                        tunings.append(start_tuning(client, uploads))
                    found.append(_bring_about(fault, servers, gateway, seen, quick=quick))
                    report(str(found[-1]))
                recovered = wait_until(lambda: ended(client, tunings))
            states = [client.get(one).json()["state"] for one in tunings]
        report(f"tunings {states} after {recovered:.1f} s")
        return _judged(box, gateway, line, seen, found, states)


@contextmanager
def running(box: Box, home: Path) -> Iterator[Gateway]:
    """Run a gateway."""
    gateway = Gateway(box, home / "gateway.log")
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


def make_project(client: httpx2.Client, name: str) -> str:
    """Make a project that can be tuned; return its address."""
    made = client.post("/v1/projects", json={"name": name}).json()
    photographs = {
        f"{label}/{number}.png": tiny.photograph(place, number)
        for place, label in enumerate(("good", "scratch"))
        for number in range(4)
    }
    path = f"/v1/projects/{made['id']}"
    sent = client.post(f"{path}/images", files={"archive": ("a.zip", zip_of(photographs))})
    assert sent.status_code == 200, sent.text  # noqa: S101 - nothing is broken yet
    return path


def start_tuning(client: httpx2.Client, project: str, steps: int = _STEPS) -> str:
    """Queue a tuning, by default of some seconds; return its address."""
    recipe = tiny.RECIPE | {"steps": steps}
    sent = client.post(f"{project}/tunings", json={"recipe": recipe})
    assert sent.status_code == 202, sent.text  # noqa: S101 - nothing is broken at this moment
    return f"/v1/tunings/{sent.json()['id']}"


def ended(client: httpx2.Client, tunings: Sequence[str]) -> bool:
    """Say whether all have come to an end."""
    found = [client.get(one) for one in tunings]
    return all(one.status_code == 200 and one.json()["finished_at"] is not None for one in found)


def _bring_about(
    fault: Fault, servers: Servers, gateway: Gateway, seen: Seen, *, quick: bool
) -> Any:
    """Return what the clients saw of it, and how long it took until all was well again."""
    time.sleep(1.0)  # a tuning is under way
    start = time.monotonic()
    fault.bring_about(servers, fault.quick_seconds if quick else fault.seconds)
    over = time.monotonic()
    wait_until(lambda: gateway.status() == "ready")
    ready = time.monotonic()
    written = seen.answers["promote"]
    wait_until(lambda: any(one.status == 200 for one in written.since(over, ready + 60).all))
    first = next(iter(one for one in written.since(over, ready + 60).all if one.status == 200))
    kinds = {kind: answers.since(start, over).summary() for kind, answers in seen.answers.items()}
    return as_json(
        {
            "fault": fault.name,
            "seconds": round(over - start, 1),
            "until_ready_seconds": round(ready - over, 1),
            "until_written_seconds": round(first.at + first.seconds - over, 1),
            "answers": kinds,
        }
    )


def _judged(
    box: Box,
    gateway: Gateway,
    line: Line,
    seen: Seen,
    found: list[dict[str, Any]],
    states: list[str],
) -> dict[str, Any]:
    """Compare what was answered with what is there; the clients are gone."""
    waiting = "shotline_prediction_records_waiting"
    written = wait_until(lambda: counters(gateway.address)[waiting] == 0)
    lost = int(counters(gateway.address)[_LOST])
    missing = len(seen.predictions) - _recorded(box, seen.predictions)
    with box.database.reading() as session:
        images = set(session.scalars(select(Image.sha256)))
        moves = session.scalars(
            select(AliasMove.reason)
            .where(AliasMove.project_id == UUID(line.project), AliasMove.reason.in_(seen.moved))
            .order_by(AliasMove.id)
        ).all()
    wrong = faults(box)
    everything = [one for answers in seen.answers.values() for one in answers.all]
    box.database.close()
    return {
        "database": "PostgreSQL",
        "faults": found,
        "tunings": states,
        "predictions": len(seen.predictions),
        "uploads": len(seen.uploads),
        "moves": len(seen.moved),
        "records_lost": {"counted": lost, "missing": missing},
        "records_written_after_seconds": round(written, 1),
        "wrong": wrong[:20],
        "checks": {
            "every prediction was answered": _all(seen, "predict", {200}),
            "what failed said 503 as problem+json, and when to come again": all(
                one.honest and one.status in {200, 503} for one in everything
            ),
            "something failed": any(one.status == 503 for one in everything),
            "no upload that was answered is lost": set(seen.uploads) <= images,
            "no promotion that was answered is lost": list(moves) == seen.moved,
            "predictions that are missing are counted, no more and no fewer": lost == missing,
            "every tuning succeeded unaided": set(states) == {"succeeded"},
            "no blob is missing or damaged, no row refers to nothing": not wrong,
        },
    }


def _recorded(box: Box, predictions: Sequence[str]) -> int:
    ids = [UUID(name) for name in predictions]
    found = 0
    with box.database.reading() as session:
        for start in range(0, len(ids), _MANY):
            row = PredictionRecord.id
            some = ids[start : start + _MANY]
            found += len(session.scalars(select(row).where(row.in_(some))).all())
    return found


def _all(seen: Seen, kind: str, statuses: set[int]) -> bool:
    return {one.status for one in seen.answers[kind].all} <= statuses
