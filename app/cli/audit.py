"""`shotline audit`: the record of changes, verified and exported on the box itself."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from app.cli.console import err, out, plain, progress_bar
from app.cli.data_folder import DATA, DataOption, settings_of
from app.cli.options import check_output
from models.errors import file_errors

if TYPE_CHECKING:
    from app.audit.verify import Verdict
    from app.core.database import Database

audit = typer.Typer(no_args_is_help=True, help="Verify and export the record of changes.")


@audit.command()
def verify(
    head: Annotated[
        str | None,
        typer.Option(help="SEQUENCE:MAC as noted elsewhere: in a log, on paper, in a backup."),
    ] = None,
    data: DataOption = DATA,
) -> None:
    """Verify every entry; exit code 1 where the record is not whole, 2 where none can say."""
    from app.audit.verify import verify as check
    from app.core.seal import Head

    given = None if head is None else Head.parse(head)
    with _database(data) as database, progress_bar() as bar:
        task = bar.add_task("Verifying", total=None, note="")
        verdict = check(
            database,
            given=given,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _print(verdict)
    if verdict.count:
        raise typer.Exit(1)


def _print(verdict: "Verdict") -> None:
    for problem in verdict.problems:
        out.print(plain(problem), soft_wrap=True)
    if verdict.count > len(verdict.problems):
        out.print(f"… and {verdict.count - len(verdict.problems)} more.")
    whole = "not whole" if verdict.count else "whole"
    out.print(
        plain(f"The record is {whole}; it ends with {verdict.head}."), soft_wrap=True, style="bold"
    )
    err.print(plain(f"Compared with {', '.join(verdict.compared)}."), soft_wrap=True)


@audit.command()
def export(
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Where to write; default: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    data: DataOption = DATA,
) -> None:
    """Write every entry as a line of JSON, in order."""
    from app.audit.repository import every_entry
    from app.audit.service import head as read
    from app.audit.verify import exported, snapshot

    with (
        _database(data) as database,
        _output(out_file, force=force) as target,
        snapshot(database) as session,
        progress_bar() as bar,
    ):
        task = bar.add_task("Exporting", total=read(session).sequence, note="")
        for entry in every_entry(session):
            target.write(exported(entry) + "\n")
            bar.advance(task)


@audit.command()
def head(data: DataOption = DATA) -> None:
    """Print the chain's end as SEQUENCE:MAC, to be noted where nobody can change it."""
    from app.audit.service import head as read

    with _database(data) as database, database.reading() as session:
        out.print(str(read(session)), highlight=False, soft_wrap=True)


@audit.command("accept-head")
def accept_head(
    reason: Annotated[str, typer.Argument(help="Why the end is another, such as a restore.")],
    data: DataOption = DATA,
) -> None:
    """Go on from where the database's chain ends, after a restore; the record says so."""
    from app.audit.service import accept_head as accept
    from app.core.audit import acting

    with _database(data) as database, acting("the command line"):
        out.print(f"The chain goes on from {accept(database, reason)}.", highlight=False)


@contextmanager
def _database(data: Path) -> "Iterator[Database]":
    from app.core.database import Database

    database = Database.of(settings_of(data))
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _output(path: Path | None, *, force: bool) -> Iterator[TextIO]:
    """Yield where to write; a file is there whole, or not at all."""
    if path is None:
        yield sys.stdout
        return
    check_output(path, force=force)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with file_errors(path, "written"):
            with draft.open("x", encoding="utf-8") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
