"""The tasks: thin, whatever they do is elsewhere."""

import os
from pathlib import Path
from uuid import UUID

from app.core.database import Database
from app.core.queue import TUNE, CeleryQueue
from worker.celery_app import STOP_FILE, app, settings
from worker.supervisor import Supervisor


@app.task(name=TUNE)  # type: ignore[untyped-decorator]  # Celery has no annotations
def tune(tuning_id: str) -> None:
    """Run the tuning where it is still queued; a second delivery does nothing."""
    database, queue = Database.of(settings), CeleryQueue(settings.queue)
    try:
        supervisor = Supervisor(
            database, queue, settings.tuning, stopping=Path(os.environ[STOP_FILE]).exists
        )
        supervisor.run(UUID(tuning_id))
    finally:
        queue.close()
        database.close()
