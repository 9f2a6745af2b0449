"""A Redis that has no room: it is noticed, and the worker outlives it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from app import migrations
from app.cli.redis_server import redis_program
from app.core.database import Database
from app.core.errors import Unavailable
from app.core.ids import new_id
from app.core.queue import TUNE, CeleryQueue, redis_refusal
from app.core.settings import QueueSettings, ServerSettings, Settings
from tests.integration import services
from tests.integration.services import wait_for
from tests.integration.small_disk import fill, small_disk


@contextmanager
def redis_on(folder: Path, socket: Path, *options: str) -> Iterator[redis.Redis]:
    command = [str(redis_program()), "--port", "0", "--unixsocket", str(socket), "--save", ""]
    with services.process([*command, "--dir", str(folder), *options], {}, socket.parent / "log"):
        wait_for(lambda: socket.exists() and services.pings(socket), "Redis")
        with redis.Redis(unix_socket_path=str(socket)) as client:
            yield client


def write_until_refused(client: redis.Redis, size: int) -> None:
    for number in range(10_000):
        client.set(f"filler-{number}", bytes(size))


def leave_no_memory(client: redis.Redis) -> None:
    """Not a byte: at a limit that is just reached, now and then a small write gets through."""
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.ResponseError, match="maxmemory"):
        client.set("filler", b"")


def _answers(url: str) -> bool:
    with Celery("shotline", broker=url) as client:
        try:
            return bool(client.control.ping(timeout=1))
        except (OperationalError, redis.RedisError):  # it has no room for the question
            return False


def _worker_outlives(
    tmp_path: Path,
    socket: Path,
    break_it: Callable[[], None],
    mend: Callable[[], None],
    *,
    idle: bool,
) -> None:
    url = f"redis+socket://{socket}"
    settings = Settings(server=ServerSettings(home=tmp_path / "home"))
    database = Database.of(settings)
    migrations.upgrade(database)
    database.close()
    queue = CeleryQueue(QueueSettings(url=SecretStr(url)))
    with services.worker(services.environment_of(settings, url), tmp_path / "worker.log") as child:
        wait_for(lambda: _answers(url), "the worker's answer")
        queue.check()
        break_it()
        wait_for(lambda: _refused(queue), "the refusal to be noticed")
        with pytest.raises((OperationalError, redis.ResponseError)):
            queue.send(TUNE, str(new_id()))
        log = tmp_path / "worker.log"
        if not idle:  # it was told so: the next thing it asks is refused
            noticed = "Connection to broker lost"
            wait_for(lambda: child.poll() or noticed in log.read_text(), "the worker to notice")
        assert child.poll() is None
        mend()
        wait_for(lambda: not _refused(queue), "room")
        queue.send(TUNE, str(new_id()))
        wait_for(lambda: _answers(url), "the worker's answer")
        assert child.poll() is None
    queue.close()


def _refused(queue: CeleryQueue) -> bool:
    try:
        queue.check()
    except (Unavailable, OperationalError):  # under MISCONF not even PING is answered
        return True
    return False


def test_a_worker_outlives_a_redis_without_memory(tmp_path: Path) -> None:
    socket = tmp_path / "r.sock"
    with redis_on(tmp_path, socket) as client:

        def mend() -> None:
            client.config_set("maxmemory", 0)

        _worker_outlives(tmp_path, socket, lambda: leave_no_memory(client), mend, idle=True)


def test_a_worker_outlives_a_redis_whose_disk_is_full(tmp_path: Path) -> None:
    socket = tmp_path / "r.sock"
    options = ["--appendonly", "yes", "--appendfsync", "everysec"]
    with (
        small_disk(tmp_path / "disk", 4) as disk,
        redis_on(disk, socket, *options) as client,
    ):
        fillers: list[Path] = []

        def break_it() -> None:
            fillers.append(fill(disk))
            with pytest.raises(redis.ResponseError, match="MISCONF"):
                write_until_refused(client, 1000)

        def mend() -> None:
            fillers[0].unlink()

        _worker_outlives(tmp_path, socket, break_it, mend, idle=False)


@pytest.mark.parametrize(
    ("info", "refusal"),
    [
        ({"maxmemory": 0, "used_memory": 5}, None),
        ({"maxmemory": 9, "used_memory": 5, "maxmemory_policy": "noeviction"}, None),
        ({"maxmemory": 5, "used_memory": 5, "maxmemory_policy": "noeviction"}, "memory is full"),
        ({"aof_enabled": 1, "aof_last_write_status": "ok"}, None),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "append-only file"),
    ],
)
def test_what_redis_says_of_itself(info: dict[str, object], refusal: str | None) -> None:
    said = redis_refusal(info)
    assert said == refusal if refusal is None else refusal in str(said)
