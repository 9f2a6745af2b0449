"""A tuning as server-sent events: one for each change, the last one at its end.

Each event carries the whole tuning and an id that stands for its content. A client that lost the
connection sends the id of the last event it saw (`Last-Event-ID`) and misses nothing: it gets the
present state, unless that is what it saw last.
"""

import hashlib
import time
from collections.abc import AsyncGenerator

import anyio

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.jobs import FINAL
from app.tunings import repository
from app.tunings.repository import TuningRow
from app.tunings.schemas import TuningOut

KEEP_ALIVE = b": still here\n\n"


async def tuning_events(
    first: TuningRow,
    database: Database,
    *,
    last_event_id: str | None,
    poll_seconds: float,
    keep_alive_seconds: float,
) -> AsyncGenerator[bytes]:
    """Yield events as they go over the wire, until the tuning has ended or is deleted.

    While the database is away only keep-alives are sent.

    Args:
        first: the tuning as it is now.
        database: asked again and again.
        last_event_id: of the last event that the client saw.
        poll_seconds: between two looks.
        keep_alive_seconds: at most so long nothing is sent.
    """
    row: TuningRow | None = first
    seen, sent_at = last_event_id, time.monotonic()
    while row is not None:
        body = TuningOut.of(row).model_dump_json()
        name = hashlib.sha256(body.encode()).hexdigest()[:16]
        ended = row.tuning.state in FINAL
        if name != seen or ended:
            yield f"id: {name}\nevent: {'end' if ended else 'progress'}\ndata: {body}\n\n".encode()
            seen, sent_at = name, time.monotonic()
        if ended:
            return
        if time.monotonic() - sent_at >= keep_alive_seconds:
            yield KEEP_ALIVE
            sent_at = time.monotonic()
        await anyio.sleep(poll_seconds)
        row = await anyio.to_thread.run_sync(_look, database, row)


def _look(database: Database, known: TuningRow) -> TuningRow | None:
    try:
        with database.reading() as session:
            return repository.get(session, known.id)
    except Unavailable:
        return known
