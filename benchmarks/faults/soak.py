"""A day in half an hour: mixed load on a gateway and a worker, of which nothing may grow.

Every generation a project is made, filled, tuned, promoted, asked and deleted again. What a process
holds is judged by its trend, the first third being a warm-up. Rows and blobs follow the load; they
are judged when it is over and the last project is deleted: as many must be there as before the
first was made. Only the record of changes grows, as it is meant to. Whether the gateway has become
slower is told by a new one beside it, asked in turn with it: the load's own latencies tell as much
of what else the machine did.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, cast

import httpx2
from scipy.stats import linregress, t
from sqlalchemy import text

from app.core.tables import Table
from app.registry.service import PRODUCTION
from benchmarks.faults.__main__ import _ROOT, Report
from benchmarks.faults.clients import is_honest
from benchmarks.faults.postgres import Servers, ended, make_project, start_tuning
from benchmarks.faults.stage import PNG, Box, Gateway, counters, faults, make_box, wait_until
from benchmarks.serving.measure import as_json, percentile
from benchmarks.serving.plots import over_time
from models.files import write_atomic
from tests.integration import services, tiny
from tests.integration.files import zip_of

_SECONDS, _QUICK_SECONDS = 1800.0, 60.0
_EVERY, _QUICK_EVERY = 10.0, 2.0
_GENERATION, _QUICK_GENERATION = 45.0, 8.0
_RATE = 10.0  # predictions a second
# So much of a figure's mean may it grow, warm once, until it counts as growing.
_GROWTH = 0.02
_CONFIDENCE = 0.95
# Never shortened.
_RECORD = "rows audit_entries"
_MIB = 1024**2
_FLAT, _FAST = "no process grows once it is warm", "the old gateway is as fast as a new one"
# Requests to each of them, of which the first do not count; by how much the old may be slower.
_SIDE_BY_SIDE, _WARM = 400, 50
_SLOWER = {"p50": 1.1, "p99": 1.5}
_BOUNDS = {
    "STORAGE_ORPHAN_AGE": "20",
    "PREDICTION_IMAGE_QUOTA_BYTES": str(2 * _MIB),
    "TUNING_REAP_SECONDS": "1",
}
_QUICK_BOUNDS = _BOUNDS | {"STORAGE_ORPHAN_AGE": "8"}


@dataclass
class Load:
    """What is under way, and what was answered.

    Attributes:
        line: the project that is asked, with a version in production; None before the first.
        batching: the project that has a batch of which the results are not read yet.
        milliseconds: (when, how long) of each prediction.
        replies: how often each kind of request got each status.
        wrong: the first of what should not be answered.
    """

    line: str | None = None
    batching: str | None = None
    milliseconds: list[tuple[float, float]] = field(default_factory=list)
    replies: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    generations: int = 0

    def note(self, kind: str, response: httpx2.Response) -> httpx2.Response:
        """Count an answer."""
        self.replies[f"{kind} {response.status_code}"] += 1
        if response.status_code >= 400 and len(self.wrong) < 20:
            self.wrong.append(f"{kind}: {response.text[:300]}")
        assert is_honest(response), response.text  # noqa: S101 - an error of another form is a bug
        return response


class Actors:
    """The clients: a line, uploads and deletions, batches, exports, and one that makes projects."""

    def __init__(self, box: Box, address: str, load: Load, generation: float) -> None:
        self._box, self._address, self._load = box, address, load
        self._generation = generation
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start, and wait until there is a project to be asked."""
        self._run(self._generations, 0.0)
        wait_until(lambda: self._load.line is not None or self._failed)
        for act, pause in (
            (self._predict, 1 / _RATE),
            (self._upload, 1.0),
            (self._batch, 2.0),
            (self._export, 2.0),
        ):
            self._run(act, pause)

    def stop(self) -> None:
        """End them; raise what one of them met."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]

    def clear(self) -> None:
        """Delete the projects that are left."""
        with self._box.client(self._address) as client:
            for project in client.get("/v1/projects").json()["items"]:
                wait_until(partial(_deleted, client, f"/v1/projects/{project['id']}"))

    def _run(self, act: Callable[[httpx2.Client, int], None], pause: float) -> None:
        thread = threading.Thread(target=self._repeat, args=(act, pause))
        self._threads.append(thread)
        thread.start()

    def _repeat(self, act: Callable[[httpx2.Client, int], None], pause: float) -> None:
        number = 0
        try:
            with self._box.client(self._address) as client:
                while not self._over.wait(pause):
                    act(client, number)
                    number += 1
        except BaseException as error:  # noqa: BLE001 - told by `stop`
            self._failed.append(error)

    def _predict(self, client: httpx2.Client, number: int) -> None:
        started = time.monotonic()
        headers = PNG | ({"Idempotency-Key": f"{started}"} if number % 2 else {})
        body = tiny.photograph(number % 3, number % 500, 200)
        response = client.post(f"{self._load.line}/predict", content=body, headers=headers)
        self._load.note("predict", response)
        self._load.milliseconds.append((started, 1000 * (time.monotonic() - started)))

    def _upload(self, client: httpx2.Client, number: int) -> None:
        """Upload four photographs, look at one, relabel one, delete them."""
        files = [
            ("files", ("a.png", tiny.photograph(0, 1000 + (4 * number + n) % 400)))
            for n in range(4)
        ]
        path = f"{self._load.line}/images"
        sent = client.post(path, files=files, data={"label": "good"})
        if self._load.note("upload", sent).status_code != 200:
            return
        images = [one["image"] for one in sent.json()["results"]]
        self._load.note("thumbnail", client.get(f"/v1/images/{images[0]}/thumbnail"))
        label = {"label": "scratch"}
        self._load.note("relabel", client.patch(f"/v1/images/{images[1]}", json=label))
        for image in images:
            self._load.note("delete", client.delete(f"/v1/images/{image}"))

    def _batch(self, client: httpx2.Client, number: int) -> None:
        names = {f"{n}.png": tiny.photograph(n % 3, number % 50 * 8 + n) for n in range(8)}
        body = {"archive": ("a.zip", zip_of(names))}
        self._load.batching = self._load.line
        sent = self._load.note("batch", client.post(f"{self._load.line}/batches", files=body))
        path = f"/v1/batches/{sent.json()['id']}"
        wait_until(lambda: client.get(path).json()["finished_at"] is not None, 600)
        for form in ("csv", "ndjson"):
            self._load.note("results", client.get(f"{path}/results", params={"format": form}))
        self._load.note("delete", client.delete(path))
        self._load.batching = None

    def _export(self, client: httpx2.Client, number: int) -> None:
        line = self._load.line
        self._load.note("export", client.get(f"{line}/predictions.csv"))
        models = self._load.note("models", client.get(f"{line}/models")).json()["items"]
        for what in ("artifact", "report"):
            self._load.note(what, client.get(f"/v1/models/{models[0]['id']}/{what}"))
        if number % 2:
            self._load.note("rollback", client.post(f"{line}/rollback", json={}))
        else:
            move = client.put(f"{line}/aliases/{PRODUCTION}", json={"version": len(models)})
            self._load.note("promote", move)

    def _generations(self, client: httpx2.Client, number: int) -> None:
        """Make a project with two versions, have it asked, delete the one before the last."""
        begun = time.monotonic()
        project = make_project(client, f"generation {number}")
        for version in (1, 2):
            tunings = [start_tuning(client, project, steps=4)]
            wait_until(partial(ended, client, tunings))
            body = {"version": version}
            self._load.note("promote", client.put(f"{project}/aliases/{PRODUCTION}", json=body))
        before, self._load.line = self._load.line, project
        self._load.generations += 1
        self._over.wait(max(0.0, begun + self._generation - time.monotonic()))
        if before is not None:
            wait_until(lambda: self._load.batching != before, 600)
            wait_until(partial(_deleted, client, before))


@dataclass
class Samples:
    """What was looked at again and again: when, and each figure."""

    times: list[float] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, at: float, figures: dict[str, float]) -> None:
        """Add a look."""
        self.times.append(at)
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)


def _deleted(client: httpx2.Client, path: str) -> bool:
    return client.delete(path).status_code == 204


def run(home: Path, *, quick: bool, report: Report) -> dict[str, Any]:
    """See `benchmarks.faults.__main__.Scenario`."""
    seconds = _QUICK_SECONDS if quick else _SECONDS
    every = _QUICK_EVERY if quick else _EVERY
    with ExitStack() as stack:
        queue = Servers(stack, postgres=False).redis_url
        box = make_box(home, None, queue, variables=_QUICK_BOUNDS if quick else _BOUNDS)
        gateway, load = Gateway(box, home / "gateway.log"), Load()
        stack.callback(gateway.stop)
        gateway.start()
        gateway.stop()  # it has converted its engine, for which it needed PyTorch
        gateway.start()
        worker = stack.enter_context(services.worker(box.environment, home / "worker.log"))
        assert gateway.process is not None  # noqa: S101 - it was started
        pids = {"gateway": gateway.process.pid, "worker": worker.pid}
        actors = Actors(box, gateway.address, load, _QUICK_GENERATION if quick else _GENERATION)
        before = _kept(box)
        try:
            actors.start()
            begun, samples = time.monotonic(), Samples()
            while (now := time.monotonic() - begun) < seconds:
                samples.add(now, _look(box, pids))
                if len(samples.times) % 6 == 1:
                    report(f"{_last(samples)}, {load.generations} generations")
                time.sleep(max(0.0, begun + every * len(samples.times) - time.monotonic()))
        finally:
            actors.stop()
        side_by_side = None if quick else _beside_a_new_one(box, load, gateway, home)
        wrong = faults(box)
        actors.clear()
        wait_until(lambda: _kept(box) == before)  # orphans have to be old enough to be swept
        left = {name: count - before[name] for name, count in _kept(box).items()}
        lost = counters(gateway.address)["shotline_prediction_records_lost_total"]
        box.database.close()
    _draw(samples, load, begun, _ROOT / ("build/faults" if quick else "docs/figures/faults"))
    found = _judged(samples, load, begun, seconds, lost, wrong)
    found["left"] = {name: count for name, count in left.items() if count}
    found["checks"]["rows and blobs end as they began"] = not found["left"]
    if side_by_side is None:
        del found["checks"][_FLAT]  # a minute tells nothing of it
    else:
        old, new = (side_by_side[name] for name in ("old", "new"))
        found["latency_ms_side_by_side"] = side_by_side
        found["checks"][_FAST] = all(old[name] <= n * new[name] for name, n in _SLOWER.items())
    return cast("dict[str, Any]", as_json(found))


def _beside_a_new_one(
    box: Box, load: Load, old: Gateway, home: Path
) -> dict[str, dict[str, float]]:
    fresh = Gateway(box, home / "fresh.log")
    fresh.start()
    try:
        return _side_by_side(box, load, {"old": old.address, "new": fresh.address})
    finally:
        fresh.stop()


def _side_by_side(
    box: Box, load: Load, addresses: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Ask each gateway in turn, so that whatever else the machine does meets both."""
    milliseconds: dict[str, list[float]] = {name: [] for name in addresses}
    with ExitStack() as stack:
        clients = {
            name: stack.enter_context(box.client(address)) for name, address in addresses.items()
        }
        for number in range(_SIDE_BY_SIDE):
            body = tiny.photograph(number % 3, number, 200)
            turn = list(clients.items())[:: 1 if number % 2 else -1]
            for name, client in turn:
                started = time.monotonic()
                response = client.post(f"{load.line}/predict", content=body, headers=PNG)
                load.note("predict", response)
                milliseconds[name].append(1000 * (time.monotonic() - started))
    return {name: _summary(found[_WARM:]) for name, found in milliseconds.items()}


def _summary(milliseconds: Sequence[float]) -> dict[str, float]:
    return {
        "p50": median(milliseconds),
        "p99": percentile(milliseconds, 0.99),
        "max": max(milliseconds),
    }


def _look(box: Box, pids: dict[str, int]) -> dict[str, float]:
    """Return everything that may grow."""
    found: dict[str, float] = {}
    for name, pid in pids.items():
        found |= {f"{name} {what}": value for what, value in _process(pid).items()}
    return found | _kept(box)


def _kept(box: Box) -> dict[str, float]:
    """Return the rows of every table but the record of changes, and the blobs."""
    found: dict[str, float] = {}
    with box.database.reading() as session:
        for table in Table.metadata.sorted_tables:
            count = session.execute(text(f"SELECT count(*) FROM {table.name}"))  # noqa: S608 - our own
            found[f"rows {table.name}"] = float(count.scalar_one())
    del found[_RECORD]
    return found | {"blobs": float(sum(1 for _ in box.storage.blobs()))}


def _process(pid: int) -> dict[str, float]:
    """Return a process's resident memory, open files and threads, as Linux tells them."""
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    return {
        "RSS MB": pages * os.sysconf("SC_PAGE_SIZE") / _MIB,
        "open files": float(len(list((folder / "fd").iterdir()))),
        "threads": float(len(list((folder / "task").iterdir()))),
    }


def _last(samples: Samples) -> str:
    shown = ("gateway RSS MB", "worker RSS MB", "gateway open files", "blobs", "rows predictions")
    return ", ".join(f"{name} {samples.figures[name][-1]:.0f}" for name in shown)


def _judged(
    samples: Samples, load: Load, begun: float, seconds: float, lost: float, wrong: list[str]
) -> dict[str, Any]:
    warm = seconds / 3
    held = {name: values for name, values in samples.figures.items() if not _is_kept(name)}
    trends = {name: _trend(samples.times, values, warm) for name, values in held.items()}
    growing = [name for name, trend in trends.items() if trend["grows"]]
    minutes = _minutes(load.milliseconds, begun, seconds)
    first, last = _thirds(load.milliseconds, begun, seconds)
    statuses = {reply.rpartition(" ")[2] for reply in load.replies}
    return {
        "database": "SQLite",
        "load_seconds": seconds,
        "generations": load.generations,
        "answers": dict(sorted(load.replies.items())),
        "wrong": [*wrong, *load.wrong],
        "warm_up_seconds": warm,
        "trends": trends,
        "growing": growing,
        "latency_ms_by_minute": minutes,
        "latency_ms_first_third": first,
        "latency_ms_last_third": last,
        "samples": {"seconds": samples.times} | samples.figures,
        "checks": {
            _FLAT: not growing,
            "every request was answered as it should be": statuses <= {"200", "201", "202", "204"},
            "every prediction is recorded": lost == 0,
            "no blob is missing or damaged, no row refers to nothing": not wrong,
        },
    }


def _is_kept(name: str) -> bool:
    return name == "blobs" or name.startswith("rows ")


def _trend(times: Sequence[float], values: Sequence[float], warm: float) -> dict[str, Any]:
    """Return the slope after the warm-up with its interval, and whether that is growth.

    Growth is a slope that is surely above zero, and that makes a difference until the end. Looks
    are joined to means of ten, since one tells of the next.
    """
    pairs = [(at, value) for at, value in zip(times, values, strict=True) if at >= warm]
    size = max(1, len(pairs) // 20)
    blocks = [pairs[start : start + size] for start in range(0, len(pairs) - size + 1, size)]
    across = [mean(at for at, _ in block) / 3600 for block in blocks]
    up = [mean(value for _, value in block) for block in blocks]
    middle = mean(up)
    if len(blocks) < 3 or len(set(up)) == 1:
        return {"mean": middle, "per_hour": 0.0, "low": 0.0, "high": 0.0, "grows": False}
    fit = linregress(across, up)
    half = float(t.ppf(0.5 + _CONFIDENCE / 2, len(blocks) - 2)) * float(fit.stderr)
    low, high = float(fit.slope) - half, float(fit.slope) + half
    grown = low * (across[-1] - across[0])
    return {
        "mean": middle,
        "per_hour": float(fit.slope),
        "low": low,
        "high": high,
        "grows": grown > max(_GROWTH * middle, 1.0),
    }


def _minutes(
    milliseconds: Sequence[tuple[float, float]], begun: float, seconds: float
) -> dict[str, list[float]]:
    """Return percentiles of each minute."""
    edges = [begun + 60.0 * minute for minute in range(int(seconds // 60) + 1)]
    found = [[ms for at, ms in milliseconds if start <= at < end] for start, end in pairwise(edges)]
    shares = {"p50": 0.5, "p99": 0.99}
    return {name: [percentile(one, share) for one in found] for name, share in shares.items()}


def _thirds(
    milliseconds: Sequence[tuple[float, float]], begun: float, seconds: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the percentiles of the first third and of the last one."""

    def summary(start: float, end: float) -> dict[str, float]:
        return _summary([ms for at, ms in milliseconds if start <= at - begun < end])

    return summary(0, seconds / 3), summary(2 * seconds / 3, seconds)


def _draw(samples: Samples, load: Load, begun: float, folder: Path) -> None:
    memory = {
        name.removesuffix(" RSS MB"): list(zip(samples.times, values, strict=True))
        for name, values in samples.figures.items()
        if name.endswith("RSS MB")
    }
    counted = [values for name, values in samples.figures.items() if name.startswith("rows ")]
    rows = [sum(one) for one in zip(*counted, strict=True)]
    blobs = samples.figures["blobs"]
    kept = {
        "rows": list(zip(samples.times, rows, strict=True)),
        "blobs": list(zip(samples.times, blobs, strict=True)),
    }
    minutes = _minutes(load.milliseconds, begun, samples.times[-1])
    latency = {
        name: [(60.0 * place + 30, value) for place, value in enumerate(values)]
        for name, values in minutes.items()
    }
    figures = [
        over_time("soak_memory", "Resident memory under a mixed load", "MB", memory),
        over_time(
            "soak_rows",
            "Rows, but for the record of changes, and blobs under a mixed load",
            "count",
            kept,
        ),
    ]
    if minutes["p50"]:
        title = "Latency of predictions, minute by minute"
        figures.append(over_time("soak_latency", title, "ms", latency))
    for figure in figures:
        write_atomic(folder / f"{figure.name}.svg", figure.svg().encode())
