"""Cells of a bench on a real Celery worker, over a real Redis."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from app.cli.bench_queue import queued
from app.core.bench_queue import BenchExchange
from app.core.errors import Unavailable
from app.core.queue import BENCH, CeleryQueue
from app.core.settings import (
    BackboneSettings,
    DatabaseSettings,
    QueueSettings,
    ServerSettings,
    Settings,
)
from models.bench.cells import Cell, list_cells
from models.bench.data import SourceRef
from models.bench.message import BackboneRef, BenchTask, Plan
from models.bench.results import CellResult
from models.bench.sources import read_source
from models.errors import Refused
from tests.integration import services, tiny
from tests.integration.services import wait_for


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.redis_server(tmp_path_factory.mktemp("r")) as url:
        yield url


@pytest.fixture(scope="module")
def environment(
    redis_url: str,
    sqlite_template: Path,
    backbone_settings: BackboneSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    settings = Settings(
        server=ServerSettings(home=home),
        database=DatabaseSettings(url=SecretStr(f"sqlite:///{sqlite_template}")),
        backbone=backbone_settings,
    )
    return services.environment_of(settings, redis_url) | {
        "SHOTLINE_QUEUE_NAME": "bench",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "worker.log"


@pytest.fixture(scope="module")
def worker(environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with services.worker(environment, log) as child:
        yield child


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "parts"
    for label, name in enumerate(("bolt", "nut", "gear")):
        (root / name).mkdir(parents=True)
        for number in range(6):
            (root / name / f"{number}.png").write_bytes(tiny.photograph(label, number))
    return root


@pytest.fixture
def queue(redis_url: str) -> QueueSettings:
    return QueueSettings(url=SecretStr(redis_url), name="bench")


@pytest.fixture(scope="module")
def plan(parts: Path, backbone_settings: BackboneSettings, tiny_digest: str) -> Plan:
    ref = SourceRef(path=parts)
    backbone = BackboneRef(
        source=backbone_settings.name,
        device="cpu",
        precision="fp32",
        offline=True,
        digest=tiny_digest,
    )
    return Plan(sources=[ref], digests={"parts": read_source(ref).digest}, backbone=backbone)


@pytest.fixture(scope="module")
def tiny_digest(tiny_backbone: Any) -> str:
    return str(tiny_backbone.digest)


@pytest.fixture
def cells() -> list[Cell]:
    return list_cells(["parts"], "few-shot", ["zero-shot"], [2], [1.0], [1])


def bench(*args: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli.main", "bench", *map(str, args)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def rows_of(path: Path) -> list[CellResult]:
    return [CellResult(**row) for row in json.loads(path.read_text())["results"]]


def keys(url: str) -> list[bytes]:
    with redis.Redis(unix_socket_path=url.removeprefix("redis+socket://")) as client:
        found: Any = client.keys("shotline:bench:*")
    return list(found)


@pytest.mark.usefixtures("worker")
def test_workers_give_the_results_of_one_process(
    parts: Path,
    environment: dict[str, str],
    backbone_settings: BackboneSettings,
    tmp_path: Path,
    redis_url: str,
) -> None:
    options = ["--methods", "zero-shot,linear-probe", "--shots", 2, "--seeds", "1,2"]
    options += ["--backbone", backbone_settings.name, "--device", "cpu"]
    options += ["--features", tmp_path / "features"]
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    serial = bench(parts, *options, "--jobs", 1, "--json", here, environment=environment)
    assert serial.returncode == 0, serial.stderr
    queued = bench(parts, *options, "--queue", "--json", there, environment=environment)
    assert queued.returncode == 0, queued.stderr
    assert len(rows_of(here)) == 4
    for first, second in zip(rows_of(here), rows_of(there), strict=True):
        assert first.same_as(second)
    assert keys(redis_url) == []


@pytest.mark.usefixtures("worker")
def test_a_worker_that_sees_other_data_says_so(
    plan: Plan, queue: QueueSettings, cells: list[Cell], redis_url: str
) -> None:
    other = plan.model_copy(update={"digests": {"parts": "sha256:0"}})
    with pytest.raises(Refused, match=r"zero-shot on parts .*sha256:0 is wanted"):
        list(queued(other, queue)(cells))
    other = plan.model_copy(
        update={"backbone": plan.backbone.model_copy(update={"digest": "sha256:1"})}
    )
    with pytest.raises(Refused, match=r"sha256:1 is wanted"):
        list(queued(other, queue)(cells))
    assert keys(redis_url) == []


def test_a_cell_that_nobody_waits_for_is_not_run(
    worker: subprocess.Popen[bytes], plan: Plan, queue: QueueSettings, cells: list[Cell], log: Path
) -> None:
    sender = CeleryQueue(queue)
    task = BenchTask(run="gone", number=0, cell=cells[0], plan=plan)
    sender.send(BENCH, task.model_dump_json())
    wait_for(lambda: "bench_not_wanted" in log.read_text(), "the worker's word")
    sender.close()


def test_a_killed_child_is_an_answer_and_the_next_cell_runs(
    worker: subprocess.Popen[bytes], plan: Plan, queue: QueueSettings, cells: list[Cell]
) -> None:
    assert len(list(queued(plan, queue)(cells))) == 1
    (pid,) = (p for p, c in services.descendants(worker.pid).items() if "worker.bench_run" in c)
    os.kill(pid, signal.SIGSTOP)  # it takes the cell and does not answer
    run = queued(plan, queue)(cells)
    started = time.monotonic()

    def kill_soon() -> None:
        time.sleep(2)
        services.kill(pid)

    threading.Thread(target=kill_soon).start()
    with pytest.raises(Refused, match="ended with code -9"):
        list(run)
    assert time.monotonic() - started < 60
    assert len(list(queued(plan, queue)(cells))) == 1


def test_without_redis(plan: Plan, cells: list[Cell], tmp_path: Path) -> None:
    nowhere = QueueSettings(url=SecretStr(f"redis+socket://{tmp_path}/none.sock"), name="x")
    with pytest.raises(Unavailable, match="cannot be reached"):
        list(queued(plan, nowhere)(cells))
    with pytest.raises(Unavailable):
        BenchExchange(nowhere, "x").wanted()
