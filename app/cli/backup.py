"""`shotline backup`: all that is kept, in one file, while the service runs."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.console import err, out, plain, progress_phases, stoppable
from app.cli.data_folder import DATA, DataOption, settings_of
from app.cli.options import check_output


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, such as shotline.tar.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    data: DataOption = DATA,
) -> None:
    """Write the database and everything it names into one file, while the service runs.

    Only its owner can read it: it holds images and the hashes of API keys. The audit key and
    secrets are not in it. The exit code is 1 where something was lost before and is missing in it.
    """
    from app.core.database import Database
    from app.core.storage import LocalStorage
    from app.maintenance.backup import LAST_BACKUP
    from app.maintenance.backup import backup as write

    check_output(file, force=force)
    settings = settings_of(data)
    database = Database.of(settings)
    try:
        with stoppable(f"{file} was not written."), progress_phases() as phases:
            manifest = write(
                database,
                LocalStorage(settings.blob_folder),
                file,
                replace=force,
                orphan_age=settings.storage.orphan_age,
                phases=phases,
            )
            (settings.home / LAST_BACKUP).touch()
    finally:
        database.close()
    out.print(
        plain(
            f"Wrote {file}: {manifest.rows} rows, {len(manifest.blobs)} blobs,"
            f" {file.stat().st_size / 1e6:.1f} MB."
        ),
        soft_wrap=True,
    )
    if manifest.left_out:
        say_left_out(manifest.left_out)
        raise typer.Exit(1)


def say_left_out(left_out: dict[str, str]) -> None:
    """Say which blobs the backup lacks."""
    err.print(
        plain(
            f"{len(left_out)} blobs that rows name are not in the backup, since they could not be"
            " read:"
        ),
        soft_wrap=True,
    )
    for sha256, reason in sorted(left_out.items()):
        err.print(plain(f"  {sha256} {reason}"), soft_wrap=True)
    err.print("`shotline verify` says what names them and what to do.", highlight=False)
