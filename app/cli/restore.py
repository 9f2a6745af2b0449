"""`shotline restore`: what `shotline backup` wrote, into an empty data folder and database."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.backup import say_left_out
from app.cli.console import err, out, plain, progress_phases, stoppable
from app.cli.data_folder import DATA, DataOption
from app.cli.up import note_holder, only_one

if TYPE_CHECKING:
    from app.core.settings import Settings
    from app.maintenance.restore import Restored


def restore(
    file: Annotated[Path, typer.Argument(help="What `shotline backup` wrote.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move aside what is there; nothing is deleted.")
    ] = False,
    data: DataOption = DATA,
) -> None:
    """Restore a backup into an empty data folder and database; stop the service before.

    The file is checked whole before anything is changed. Run it again if it was interrupted. A
    backup of an older version is migrated to this one.
    """
    from app.core.settings import ServerSettings, Settings

    settings = Settings(server=ServerSettings(home=data))
    settings.home.mkdir(parents=True, exist_ok=True)
    again = "What is there is as it was; restore again."
    with only_one(settings.home) as lock:
        note_holder(lock, f"a restore, process {os.getpid()}")
        with stoppable(again):
            _say(file, _restore(file, settings, replace=replace))


def _restore(file: Path, settings: "Settings", *, replace: bool) -> "Restored":
    from app.core.database import Database
    from app.maintenance.restore import Place
    from app.maintenance.restore import restore as put_back

    database = Database.of(settings)
    try:
        with progress_phases() as phases:
            return put_back(
                file,
                Place(database, settings.blob_folder),
                replace=replace,
                audit_key_file=settings.audit_key_file,
                phases=phases,
            )
    finally:
        database.close()


def _say(file: Path, done: "Restored") -> None:
    manifest = done.manifest
    out.print(
        plain(
            f"Restored {manifest.rows} rows and {len(manifest.blobs)} blobs of {file}, taken"
            f" {manifest.created:%Y-%m-%d %H:%M} UTC. `shotline verify` looks at all of it."
        ),
        soft_wrap=True,
    )
    for place in done.aside:
        err.print(plain(f"What was there is now {place}."), soft_wrap=True)
    if done.audit_key is not None:
        err.print(
            plain(f"{done.audit_key} Nothing can be changed until the right one is put there."),
            soft_wrap=True,
        )
    if manifest.left_out:
        say_left_out(manifest.left_out)
