"""How a bench on many workers hears of its cells: through two keys in the broker's Redis.

Nobody collects but the one who sent the cells, and for as long as they are wanted: a list takes the
answers, and another key says that someone still waits. Both go by themselves when nobody does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.exceptions import OperationalError
from redis import RedisError

from app.core.errors import Unavailable
from app.core.settings import QueueSettings

# A cell is only run while its sender was seen within so many seconds.
WANTED_SECONDS = 600


class BenchExchange:
    """The answers to one run.

    Raises:
        Unavailable: Redis cannot be reached; of every method.
    """

    def __init__(self, settings: QueueSettings, run: str) -> None:
        celery = Celery("shotline", broker=settings.url.get_secret_value())
        celery.conf.broker_transport_options = {
            "socket_connect_timeout": settings.send_timeout,
            "max_retries": 1,
            "interval_start": 0,
        }
        # Whatever Celery reads as Redis's address is one here too.
        self._connection = celery.connection_for_write()
        self._answers, self._wanted = f"shotline:bench:{run}", f"shotline:bench:{run}:wanted"

    def want(self) -> None:
        """Say that someone waits for answers."""
        with self._client() as client:
            client.set(self._wanted, 1, ex=WANTED_SECONDS)

    def wanted(self) -> bool:
        """Say whether someone does."""
        with self._client() as client:
            return bool(client.exists(self._wanted))

    def answer(self, text: str) -> None:
        """Put an answer into the list."""
        with self._client() as client:
            client.rpush(self._answers, text)
            client.expire(self._answers, WANTED_SECONDS)

    def next_answer(self, seconds: int) -> str | None:
        """Take the next answer out of the list; wait for so long."""
        with self._client() as client:
            found = client.blpop(self._answers, timeout=seconds)
        return None if found is None else bytes(found[1]).decode()

    def end(self) -> None:
        """Say that nobody waits any more."""
        with self._client() as client:
            client.delete(self._answers, self._wanted)

    def close(self) -> None:
        """Close the connection."""
        self._connection.release()

    @contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            yield self._connection.default_channel.client
        except (RedisError, OperationalError) as error:
            raise Unavailable(
                f"The queue cannot be reached: {error}.",
                fix="See that Redis runs, and that SHOTLINE_QUEUE_URL names it.",
                field="queue",
            ) from error
