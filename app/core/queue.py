"""The seam to the workers: task names, and the one method that sends them.

The gateway never imports `worker`; it knows tasks by name. Messages go out after the commit that
they speak of, and one that cannot be sent is only logged: the reaper finds the row.
"""

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

import structlog
from celery import Celery
from sqlalchemy.orm import Session

from app.core.database import after_commit
from app.core.errors import Unavailable
from app.core.settings import QueueSettings

log = structlog.get_logger(__name__)

TUNE = "shotline.tune"
TRIAL = "shotline.trial"
BATCH = "shotline.batch"
GATE = "shotline.gate"
BENCH = "shotline.bench"
EXAMINE = "shotline.examine"

# Redis hands out lower numbers first; whatever is not named here has 0.
_PRIORITIES = {TRIAL: 3, GATE: 3, EXAMINE: 3, BATCH: 6}


class TaskQueue(Protocol):
    """Sends a task by name with arguments that JSON can carry."""

    def send(self, task: str, *args: str) -> None:
        """Send it, or raise whatever the broker's client raises."""
        ...

    def check(self) -> None:
        """Raise unless the broker can be reached."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


def wake(session: Session, queue: TaskQueue, task: str, job_id: UUID) -> None:
    """Wake a worker for the job once `session` is committed."""
    after_commit(session, lambda: queue.send(task, str(job_id)))


def send_tuning(session: Session, queue: TaskQueue, tuning_id: UUID) -> None:
    """Wake a worker for the tuning once `session` is committed."""
    wake(session, queue, TUNE, tuning_id)


def send_batch(session: Session, queue: TaskQueue, batch_id: UUID) -> None:
    """Wake a worker for the batch, once it has no tuning to do, after the commit."""
    wake(session, queue, BATCH, batch_id)


def send_gate(session: Session, queue: TaskQueue, run_id: UUID) -> None:
    """Wake a worker for the run of gates, once it has no tuning to do, after the commit."""
    wake(session, queue, GATE, run_id)


def send_examination(session: Session, queue: TaskQueue, examination_id: UUID) -> None:
    """Wake a worker for the examination, once it has no tuning to do, after the commit."""
    wake(session, queue, EXAMINE, examination_id)


class CeleryQueue:
    """Celery over Redis; only sends."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._celery = Celery("shotline", broker=settings.url.get_secret_value())
        timeout = settings.send_timeout
        self._celery.conf.update(
            task_default_queue=settings.name,
            task_serializer="json",
            accept_content=["json"],
            task_ignore_result=True,
            broker_connection_timeout=timeout,
            broker_transport_options={
                "socket_connect_timeout": timeout,
                "socket_timeout": timeout,
                "max_retries": 0,
            },
        )

    def send(self, task: str, *args: str) -> None:
        """Send `task`; the row stays queued for the reaper where that fails."""
        priority = _PRIORITIES.get(task, 0)
        self._celery.send_task(
            task, args=list(args), retry=False, ignore_result=True, priority=priority
        )

    def check(self) -> None:
        """Raise unless Redis answers and takes what is sent."""
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(
                max_retries=1, interval_start=0, timeout=self._settings.send_timeout
            )
            refusal = redis_refusal(connection.default_channel.client.info())
            if refusal is not None:
                raise Unavailable(
                    f"Redis takes no messages: {refusal}.",
                    fix="Give Redis memory or disk; what was to be sent is found in the database.",
                )

    def close(self) -> None:
        """Close the connections to Redis."""
        self._celery.close()


def redis_refusal(info: Mapping[str, Any]) -> str | None:
    """Return why a Redis that says this of itself refuses to be written to; None where it does not.

    Args:
        info: what the command INFO says.
    """
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and used >= limit and info.get("maxmemory_policy") == "noeviction":
        return f"its memory is full ({used} bytes of {limit})"
    if info.get("aof_enabled") and info.get("aof_last_write_status") != "ok":
        return "it cannot write its append-only file"
    return None


class InMemoryQueue:
    """Keeps what was sent, in order; for tests and for looking at the seam."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[str, ...]]] = []
        self.error: Exception | None = None

    def send(self, task: str, *args: str) -> None:
        """Note the task, or raise `error` where one is set."""
        if self.error is not None:
            raise self.error
        self.sent.append((task, args))

    def check(self) -> None:
        """Raise `error` where one is set."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Nothing to close."""
