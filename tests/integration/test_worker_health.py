"""The health check of a worker, against a real one behind a real Redis."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import SecretStr

from app.cli.redis_server import redis_command
from app.core.errors import Unavailable
from app.core.settings import QueueSettings
from worker.health import check_device, check_worker, main


@pytest.fixture
def home() -> Iterator[Path]:
    # Not pytest's folder: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="shotline-") as folder:
        yield Path(folder)


@pytest.fixture
def redis(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(redis_command(home, home / "redis.sock")) as process:
        yield process
        process.kill()


@pytest.fixture
def queue(home: Path) -> QueueSettings:
    return QueueSettings(url=SecretStr(f"redis+socket://{home / 'redis.sock'}"))


@pytest.fixture
def worker(home: Path, redis: object, queue: QueueSettings) -> Iterator["subprocess.Popen[bytes]"]:
    environment = os.environ | {
        "SHOTLINE_HOME": str(home),
        "SHOTLINE_QUEUE_URL": queue.url.get_secret_value(),
    }
    command = [sys.executable, "-m", "app.cli.main", "worker"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        yield process
        process.send_signal(signal.SIGCONT)
        process.terminate()


def wait_for_answer(queue: QueueSettings) -> None:
    """Ask until the worker answers; each question waits for itself."""
    give_up_at = time.monotonic() + 60
    while True:
        try:
            return check_worker(queue, seconds=1)
        except Unavailable:
            if time.monotonic() > give_up_at:
                raise


def test_a_worker_that_answers_and_one_that_hangs(
    worker: "subprocess.Popen[bytes]", queue: QueueSettings
) -> None:
    wait_for_answer(queue)
    worker.send_signal(signal.SIGSTOP)
    with pytest.raises(Unavailable, match=r"The worker celery@\S+ did not answer within 1 seconds"):
        check_worker(queue, seconds=1)
    worker.send_signal(signal.SIGCONT)
    wait_for_answer(queue)


def test_without_a_broker(home: Path) -> None:
    url = SecretStr(f"redis+socket://{home / 'nobody.sock'}")
    with pytest.raises(Unavailable, match="The broker cannot be reached"):
        check_worker(QueueSettings(url=url), seconds=1)


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_device_that_computes(name: str) -> None:
    check_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(Unavailable, match="The device 'cuda' cannot be used"):
        check_device("cuda")


def test_a_device_that_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda self, other: self + other)
    with pytest.raises(Unavailable, match="computes wrongly"):
        check_device("cpu")


def test_the_command_says_which_part_failed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "nice", lambda increment: 0)
    monkeypatch.setenv("SHOTLINE_QUEUE_URL", f"redis+socket://{home / 'nobody.sock'}")
    assert main() == 1
    assert capsys.readouterr().err.startswith("worker: The broker cannot be reached")
    monkeypatch.setattr("worker.health.check_worker", lambda settings: None)
    monkeypatch.setenv("SHOTLINE_BACKBONE_DEVICE", "cpu")
    assert main() == 0
    assert capsys.readouterr().out == "worker: ok\ndevice: ok\n"
