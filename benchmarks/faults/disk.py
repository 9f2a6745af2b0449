"""Each disk that something is written to fills: what needs it is refused, and all else goes on.

The data folder, the blobs, the database and Redis have a small disk each. A gateway and a worker
run; one disk after the other is filled, looked at, and freed again.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import select

from app.cli.redis_server import redis_command
from app.core.tables import Image
from benchmarks.faults.__main__ import Report
from benchmarks.faults.postgres import ended, make_project, start_tuning
from benchmarks.faults.stage import (
    PNG,
    PRODUCTION,
    Box,
    Gateway,
    Line,
    counters,
    faults,
    make_box,
    wait_until,
)
from tests.integration import services, tiny
from tests.integration.files import png, zip_of
from tests.integration.small_disk import fill, small_disk

_SIZES = {"home": 48, "blobs": 24, "database": 12, "redis": 12}  # megabytes
# The queue is looked through often, so that a scenario need not wait a minute for a lost message.
_QUEUE = {"TUNING_REAP_SECONDS": "1", "TUNING_RESEND_SECONDS": "2", "TUNING_LEASE_SECONDS": "5"}
# Full disks are to be met, not to be kept away from.
_NO_RESERVE = {"STORAGE_RESERVE_BYTES": "0", "STORAGE_LOW_DISK_BYTES": "0"}
_MOST_WRITES = 5000


@dataclass
class Stand:
    """What runs, and what was found of it."""

    box: Box
    gateway: Gateway
    client: httpx2.Client
    line: Line
    uploads: str
    image: str
    disks: dict[str, Path]
    number: int = 100
    stored: set[str] = field(default_factory=set)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def full(self, disk: str, point: str) -> Iterator[dict[str, Any]]:
        """Fill a disk, see that predictions and reads go on, free it, and see that all works."""
        found = self.points.setdefault(point, {"disk": disk})
        filler = fill(self.disks[disk])
        try:
            yield found
            found["predictions"] = [self.predict() for _ in range(5)]
            found["reads"] = self.read()
        finally:
            filler.unlink()
        took = wait_until(lambda: self.upload().status_code == 200, 60)
        found["works_again_after_seconds"] = round(took, 2)

    def predict(self, **headers: str) -> int:
        """Ask for a prediction; return the status."""
        self.number += 1
        body = tiny.photograph(self.number % 3, self.number)
        path = f"{self.line.path}/predict"
        return self.client.post(path, content=body, headers=PNG | headers).status_code

    def read(self) -> list[int]:
        """Read something of everything; return the statuses."""
        paths = (
            "/v1/projects",
            f"{self.uploads}/images",
            f"/v1/images/{self.image}/content",
            f"/v1/images/{self.image}/thumbnail",
            f"{self.line.path}/models",
            f"{self.line.path}/aliases/{PRODUCTION}/moves",
            f"{self.line.path}/predictions",
            "/readyz",
            "/metrics",
        )
        return [self.client.get(path).status_code for path in paths]

    def upload(self, size: int = 16) -> httpx2.Response:
        """Upload a photograph that is not there yet."""
        self.number += 1
        data = png(self.number, (size, size))
        files = [("files", ("a.png", data))]
        response = self.client.post(f"{self.uploads}/images", files=files, data={"label": "good"})
        if response.status_code == 200:
            self.stored.add(sha256(data).hexdigest())
        return response

    def tune(self) -> str:
        """Run a tuning to its end; see `ending`."""
        return self.ending(start_tuning(self.client, self.uploads, steps=4))

    def ending(self, tuning: str) -> str:
        """Wait for a tuning's end; return its state, with the reason where it failed."""
        wait_until(lambda: ended(self.client, [tuning]))
        found = self.client.get(tuning).json()
        if found["failure"] is None:
            return str(found["state"])
        where = f"{self.disks['home'].parent}/"
        return f"{found['state']}: {found['failure']['problem'].replace(where, '')}"


def run(home: Path, *, quick: bool, report: Report) -> dict[str, Any]:
    """See `benchmarks.faults.__main__.Scenario`; the small one leaves out what needs a worker."""
    with ExitStack() as stack:
        stand = _set_up(stack, home, worker=not quick)
        points = [_body, _blob, _commit, _thumbnail]
        points += [] if quick else [_features, _artifact, _row_of_a_tuning, _wake_up]
        for point in points:
            point(stand)
            report(f"{point.__name__}: {list(stand.points.values())[-1]}")
        waiting = "shotline_prediction_records_waiting"
        wait_until(lambda: counters(stand.gateway.address)[waiting] == 0)
        lost = counters(stand.gateway.address)["shotline_prediction_records_lost_total"]
        stand.gateway.stop()
        if not quick:
            _engines(stand, home)
            report(f"engines: {stand.points['converted encoder']}")
        with stand.box.database.reading() as session:
            there = set(session.scalars(select(Image.sha256)))
        wrong = faults(stand.box)
        stand.box.database.close()
    return {
        "disks_mb": _SIZES,
        "points": stand.points,
        "records_lost": lost,
        "wrong": wrong[:20],
        "checks": _checks(stand, there, wrong, lost),
    }


def _set_up(stack: ExitStack, home: Path, *, worker: bool) -> Stand:
    names = {"home": "home"} | {name: name for name in _SIZES if name != "home"}
    disks = {
        name: stack.enter_context(small_disk(home / folder, _SIZES[name]))
        for name, folder in names.items()
    }
    box = make_box(
        home,
        f"sqlite:///{disks['database'] / 'shotline.db'}",
        stack.enter_context(_redis(disks["redis"])),
        blobs=disks["blobs"] / "blobs",
        variables=_QUEUE | _NO_RESERVE,
    )
    line = box.add_line("line 3", keep_images="all")
    gateway = Gateway(box, home / "gateway.log")
    stack.callback(gateway.stop)
    gateway.start()
    if worker:
        stack.enter_context(services.worker(box.environment, home / "worker.log"))
    client = stack.enter_context(box.client(gateway.address))
    uploads = make_project(client, "uploads")
    image = client.get(f"{uploads}/images").json()["items"][0]["id"]
    return Stand(box, gateway, client, line, uploads, image, disks)


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    """Run Redis as `shotline up` does, its file on a small disk."""
    short = Path(tempfile.mkdtemp(prefix="sl"))
    path = short / "redis.sock"
    try:
        with services.process(redis_command(folder, path), {}, short / "redis.log"):
            wait_until(path.exists)
            yield f"redis+socket://{path}"
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _body(stand: Stand) -> None:
    with stand.full("home", "spooled body") as found:
        found["refused"] = [stand.upload().status_code, stand.upload(200).status_code]
        found["predictions_with_a_key"] = [
            stand.predict(**{"idempotency-key": str(number)}) for number in (1, 2)
        ]


def _blob(stand: Stand) -> None:
    archive = zip_of({f"good/{n}.png": tiny.photograph(0, 500 + n, 100) for n in range(20)})
    with stand.full("blobs", "blob") as found:
        response = stand.client.post(f"{stand.uploads}/images", files={"archive": ("a", archive)})
        batch = stand.client.post(f"{stand.line.path}/batches", files={"archive": ("a", archive)})
        found["refused"] = [stand.upload().status_code, response.status_code, batch.status_code]


def _commit(stand: Stand) -> None:
    """Pages that a checkpoint freed take some writes yet: they go on until the first refusal."""
    with stand.full("database", "commit") as found:
        written = 0
        while (response := stand.upload()).status_code == 200 and written < _MOST_WRITES:
            written += 1
        body = {"version": 2}
        moved = stand.client.put(f"{stand.line.path}/aliases/{PRODUCTION}", json=body)
        found["written_before"] = written
        found["refused"] = [response.status_code, moved.status_code]


def _thumbnail(stand: Stand) -> None:
    with stand.full("home", "thumbnail") as found:
        path = f"/v1/images/{stand.image}/thumbnail"
        found["answered"] = [
            stand.client.get(path, params={"size": size}).status_code for size in (64, 100, 200)
        ]


def _features(stand: Stand) -> None:
    with stand.full("home", "features of a tuning") as found:
        found["tuning"] = stand.tune()
    found["tuning_afterwards"] = stand.tune()


def _artifact(stand: Stand) -> None:
    with stand.full("blobs", "checkpoint and artifact") as found:
        found["tuning"] = stand.tune()
    found["tuning_afterwards"] = stand.tune()


def _row_of_a_tuning(stand: Stand) -> None:
    """The database's disk fills while a tuning runs; the tuning comes to an end once it is free."""
    tuning = start_tuning(stand.client, stand.uploads)
    wait_until(lambda: stand.client.get(tuning).json()["state"] == "running")
    with stand.full("database", "row of a tuning"):
        time.sleep(10.0)  # several heartbeats, and as long as the tuning itself takes
    found = stand.points["row of a tuning"]
    found["tuning"] = stand.ending(tuning)


def _wake_up(stand: Stand) -> None:
    with stand.full("redis", "file of Redis") as found:
        tunings = [start_tuning(stand.client, stand.uploads, steps=4) for _ in range(2)]
    endings = {stand.ending(tuning) for tuning in tunings}
    found["tuning"] = found["tuning_afterwards"] = ", ".join(sorted(endings))


def _engines(stand: Stand, home: Path) -> None:
    """A gateway that has to choose its engine anew decides although it cannot keep what it made."""
    shutil.rmtree(stand.box.settings.engine_folder)
    gateway = Gateway(stand.box, home / "engines.log", SHOTLINE_BACKBONE_ENGINE="auto")
    filler = fill(stand.disks["home"])
    found = stand.points.setdefault("converted encoder", {"disk": "home"})
    try:
        gateway.start()
        with stand.box.client(gateway.address) as client:
            body = tiny.photograph(0, 1)
            path = f"{stand.line.path}/predict"
            found["predictions"] = [client.post(path, content=body, headers=PNG).status_code]
    finally:
        gateway.stop()
        filler.unlink()


def _checks(stand: Stand, there: set[str], wrong: list[str], lost: float) -> dict[str, bool]:
    points = stand.points.values()
    refused = [status for point in points for status in point.get("refused", [])]
    decided = [
        status
        for point in points
        for name in ("predictions", "predictions_with_a_key")
        for status in point.get(name, [])
    ]
    read = [s for point in points for name in ("reads", "answered") for s in point.get(name, [])]
    tunings = [point["tuning"] for point in points if "tuning" in point]
    return {
        "what could not be written was refused with 507": set(refused) == {507},
        "predictions went on": set(decided) == {200},
        "everything could be read": set(read) == {200},
        "a tuning that met a full disk said so, or succeeded": all(
            one == "succeeded" or "disk" in one.lower() for one in tunings
        ),
        "with space again all worked unaided": all(
            point.get("works_again_after_seconds", 0) < 60
            and point.get("tuning_afterwards", "succeeded") == "succeeded"
            for point in points
        ),
        "nothing that was answered is lost": stand.stored <= there and lost == 0,
        "no blob is missing or damaged, no row refers to nothing": not wrong,
    }
