"""The Celery application: one process that supervises, one tuning at a time.

`celery --app worker.celery_app worker` needs no options; everything is configured here.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from celery import Celery
from celery.platforms import EX_FAILURE
from celery.signals import (
    setup_logging,
    worker_init,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)
from celery.worker import WorkController

from app.audit.head_log import HeadLog
from app.core.background import Repeater
from app.core.database import Database
from app.core.logging import configure_logging
from app.core.queue import CeleryQueue
from app.core.reaper import make_reaper
from app.core.settings import Settings
from worker.device import DeviceRecord

# Set for the process that supervises: a file that appears when the worker is told to stop. The
# pool's processes do not hear of it otherwise; a warm shutdown waits for them.
STOP_FILE = "SHOTLINE_WORKER_STOP_FILE"

# Beyond the tuning's own limit, which the supervisor enforces, Celery kills the supervisor.
_GRACE = 120

settings = Settings()
_limit = settings.tuning.time_limit_seconds + _GRACE

app = Celery("shotline", broker=settings.queue.url.get_secret_value(), include=["worker.tasks"])
app.conf.update(
    task_default_queue=settings.queue.name,
    task_serializer="json",
    accept_content=["json"],
    result_backend=None,
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_time_limit=_limit,
    worker_pool="prefork",
    worker_pool_start_method="spawn",  # nothing of a GPU is ever inherited
    worker_concurrency=1,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # Redis may be gone for as long as it likes
    broker_channel_error_retry=True,  # or say that its memory or its disk is full
    # A message that is not acknowledged for so long is delivered again.
    broker_transport_options={"visibility_timeout": _limit + _GRACE},
)

# The main process, for those of the pool.
_MAIN = "SHOTLINE_WORKER_PROCESS"

_DEVICE_SECONDS = 120.0  # a driver that hangs is no better than one that says no

_background: list[Repeater | HeadLog] = []
_resources: list[Database | CeleryQueue] = []


def end_worker() -> None:
    """Have the worker whose pool this process belongs to finish what it does, and end."""
    if os.environ[_MAIN] == str(os.getppid()):  # else it has ended already
        os.kill(os.getppid(), signal.SIGTERM)


def _name_stop_file(**_: Any) -> None:
    # Before the pool starts: its processes inherit the variables.
    os.environ[STOP_FILE] = str(Path(tempfile.mkdtemp(prefix="shotline-worker-")) / "stop")
    os.environ[_MAIN] = str(os.getpid())


def _look_at_device(**_: Any) -> None:
    """Take no jobs with a device that was lost, before it computes again."""
    record = DeviceRecord.of(settings)
    if not record.is_lost():
        return
    check = [sys.executable, "-m", "worker.health", "--device"]
    try:
        computes = subprocess.run(check, check=False, timeout=_DEVICE_SECONDS).returncode == 0  # noqa: S603
    except subprocess.TimeoutExpired:
        computes = False
    if not computes:
        raise SystemExit("The device was lost and is not back; start the worker again later.")
    record.found()


def _configure_logging(**_: Any) -> None:
    configure_logging(settings.log)


def _start_background(**_: Any) -> None:
    database, queue = Database.of(settings), CeleryQueue(settings.queue)
    for component in (make_reaper(database, queue, settings.tuning), HeadLog(database)):
        component.start()
        _background.append(component)
    _resources.extend((database, queue))


def _tell_supervisor(**_: Any) -> None:
    Path(os.environ[STOP_FILE]).touch()


def _stop_background(sender: WorkController, **_: Any) -> None:
    for component in _background:
        component.stop()
    for resource in _resources:
        resource.close()
    shutil.rmtree(Path(os.environ[STOP_FILE]).parent, ignore_errors=True)
    if DeviceRecord.of(settings).is_lost():
        sender.exitcode = EX_FAILURE  # not a stop that anyone asked for: start it again


worker_init.connect(_look_at_device)
worker_init.connect(_name_stop_file)
setup_logging.connect(_configure_logging)
worker_ready.connect(_start_background)
worker_shutting_down.connect(_tell_supervisor)
worker_shutdown.connect(_stop_background)
