"""What scenarios share: how long they run, photographs, and a gateway beside a bare encoder."""

import contextlib
import json
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from app.core.settings import Settings
from app.core.tables import KeepImages
from benchmarks.common import data_root, reencode
from benchmarks.serving.bare import Bare
from benchmarks.serving.client import Seen, send
from benchmarks.serving.engine import Facts
from benchmarks.serving.gateway import counters, engine_of, environment_of, gateway, redis
from benchmarks.serving.home import Home, prepare
from benchmarks.serving.load import Plan
from benchmarks.serving.measure import Check
from benchmarks.serving.processes import Server
from models.bench.figures.svg import Figure

_SETS, _PHOTOGRAPHS = ("magnetic_tile", "xsdd", "clothing10"), 40
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


@dataclass(frozen=True)
class Outcome:
    """What a scenario found: figures for its file, checks against targets, pictures."""

    content: dict[str, Any]
    checks: list[Check]
    figures: list[Figure] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """How a scenario is run.

    Attributes:
        quick: three short runs instead of five, to see that everything works.
        work: an empty folder.
        photographs: JPEG files.
        data_set: where they come from.
    """

    quick: bool
    work: Path
    photographs: list[Path]
    data_set: str

    @property
    def runs(self) -> int:
        """How often each measurement is repeated."""
        return 3 if self.quick else 5

    def seconds(self, full: float) -> float:
        """Return how long to measure: `full`, or 2 seconds at most."""
        return min(full, 2.0) if self.quick else full

    def count(self, full: int) -> int:
        """Return how many to make: `full`, or a hundredth."""
        return max(1, full // 100) if self.quick else full

    def facts(self) -> dict[str, Any]:
        """Return what every results file says of the run."""
        sizes = [path.stat().st_size for path in self.photographs]
        return {
            "quick": self.quick,
            "runs": self.runs,
            "photographs": {
                "set": self.data_set,
                "count": len(sizes),
                "mean_bytes": sum(sizes) / len(sizes),
            },
            "environment": {
                "cores": os.cpu_count(),
                "affinity": len(os.sched_getaffinity(0)),
                "torch_threads": torch.get_num_threads(),
                "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
            },
        }


def write_photographs(folder: Path) -> tuple[list[Path], str]:
    """Write real photographs as JPEG of quality 95; return them and the set's name.

    Raises:
        SystemExit: there are none.
    """
    for name in _SETS:
        root = data_root() / name
        found = sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if len(found) >= _PHOTOGRAPHS:
            folder.mkdir(parents=True, exist_ok=True)
            paths = [folder / f"{number}.jpg" for number in range(_PHOTOGRAPHS)]
            step = len(found) // _PHOTOGRAPHS
            for path, source in zip(paths, found[::step], strict=False):
                path.write_bytes(reencode(source.read_bytes()))
            return paths, name
    raise SystemExit(
        f"None of {', '.join(_SETS)} with {_PHOTOGRAPHS} photographs is in {data_root()};"
        " SHOTLINE_DATA names the folder of development images."
    )


@dataclass
class Stand:
    """A gateway with one project or several, and the same engine bare.

    Attributes:
        bench: how it is run.
        home: the gateway's.
        server: the gateway.
        bare: the engine without it.
        engine: what it is.
        settings: the gateway's.
    """

    bench: Bench
    home: Home
    server: Server
    bare: Bare
    engine: Facts
    settings: Settings

    @property
    def concurrency(self) -> int:
        """So many clients keep every batch full: one rides, one waits, one is on its way."""
        return 3 * self.settings.prediction.max_batch

    def plan(self, **values: Any) -> Plan:
        """Return a plan for the load generator."""
        return plan_for(self.bench, self.home, self.server, **values)

    def saturate(self, seconds: float, *, seed: int = 0) -> tuple[Seen, float]:
        """Return a closed loop of enough clients, and the mean size of its batches."""
        before = counters(self.server, self.home.key).batches
        warmup = min(2.0, seconds)
        seen = send(
            self.plan(concurrency=self.concurrency, seconds=seconds, warmup=warmup, seed=seed)
        )
        return seen, counters(self.server, self.home.key).batches.mean_since(before)

    def keep_images(self, which: KeepImages) -> None:
        """Have the gateway keep images from now on, or not."""
        for line in self.home.lines:
            request = urllib.request.Request(  # noqa: S310 - our own server
                f"{self.server.address}/v1/projects/{line.project}",
                json.dumps({"keep_images": which}).encode(),
                self.home.headers | {"Content-Type": "application/json"},
                method="PATCH",
            )
            urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
        time.sleep(2 * self.settings.prediction.refresh_seconds)

    def facts(self) -> dict[str, Any]:
        """Return what a results file says of it."""
        return self.bench.facts() | self.serving()

    def serving(self) -> dict[str, Any]:
        """Return what serves, and how."""
        prediction = self.settings.prediction
        return {
            # Of a folder of this run, the name alone.
            "engine": self.engine._asdict() | {"source": self.engine.source.rpartition("/")[2]},
            "engine_of_the_gateway": engine_of(self.server),
            "max_batch": prediction.max_batch,
            "decode_workers": prediction.decode_workers,
            "projects": len(self.home.lines),
        }


def plan_for(bench: Bench, home: Home, server: Server, **values: Any) -> Plan:
    """Return a plan: every photograph, every project of the home."""
    return Plan(
        port=server.port,
        paths=[line.predict for line in home.lines],
        bodies=[str(path) for path in bench.photographs],
        headers=home.headers,
        **values,
    )


@contextlib.contextmanager
def stand(
    bench: Bench,
    *,
    lines: int = 1,
    versions: int = 1,
    environment: Mapping[str, str] | None = None,
    name: Literal["home", "other"] = "home",
) -> Iterator[Stand]:
    """Run a gateway and a bare encoder with the same settings; both are warm."""
    folder = bench.work / name
    logs = bench.work / "logs"
    logs.mkdir(exist_ok=True)
    with redis(logs) as queue:
        settings = environment_of(folder, queue) | dict(environment or {})
        with Bare(settings, bench.photographs) as bare:
            engine = bare.facts()
            home = prepare(folder, engine, lines=lines, versions=versions)
            with gateway(settings, logs / f"{name}.log") as server:
                made = Stand(bench, home, server, bare, engine, settings_of(settings))
                made.saturate(bench.seconds(3.0))  # every size of batch was there once
                yield made


def settings_of(environment: Mapping[str, str]) -> Settings:
    """Return the settings as a process with these variables reads them."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        return Settings()
    finally:
        os.environ.clear()
        os.environ.update(before)
