"""`shotline serve`, `shotline worker`, `shotline migrate`: one process each, for a supervisor."""

import contextlib
import os
import sys
from typing import Annotated

import typer


def serve() -> None:
    """Run the gateway; everything about it is read from SHOTLINE_ variables."""
    import uvicorn

    from app.core.logging import configure_logging
    from app.core.settings import Settings
    from app.http.server import allow_connections, server_config
    from app.main import create_app

    settings = Settings()
    configure_logging(settings.log)
    allow_connections(settings.limits)
    server = uvicorn.Server(server_config(create_app(settings), settings))
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(3)  # as `uvicorn.run` does


def worker() -> None:
    """Run the worker; everything about it is read from SHOTLINE_ variables."""
    from app.core.settings import Settings

    Settings()  # a bad variable is refused here, in two lines, and not by Celery in fifty
    # By name: the gateway's package never imports the worker's.
    celery = [sys.executable, "-m", "celery", "--app", "worker.celery_app", "worker"]
    os.execv(sys.executable, celery)  # noqa: S606 - a fixed command


def migrate(
    copy: Annotated[
        bool, typer.Option("--copy/--no-copy", help="Copy a SQLite database before it is changed.")
    ] = True,
) -> None:
    """Bring the database to the schema of this version: all of it, or nothing."""
    from app.cli.console import err, out, plain
    from app.core.database import Database
    from app.core.settings import Settings
    from app.maintenance.upgrade import upgrade

    database = Database.of(Settings())
    try:
        done = upgrade(database, copy=copy)
        if done.copy is not None:
            err.print(plain(f"The database as it was is kept in {done.copy}."), soft_wrap=True)
        out.print(f"The database is at revision {done.after}.", highlight=False)
    finally:
        database.close()
