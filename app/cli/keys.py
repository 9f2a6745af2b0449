"""`shotline keys`: API keys, made and revoked on the box itself, where no key is needed yet."""

import contextlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from app.cli.console import err, out
from app.cli.data_folder import DATA, DataOption, settings_of
from models.errors import BadInput

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.orm import Session

    from app.core.access import Principal
    from app.core.tables import ApiKey

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="Who holds it, such as 'line 3 camera'.")],
    role: Annotated[
        Literal["viewer", "operator", "engineer", "admin"],
        typer.Option(help="Look; also predict; also upload, tune, promote; everything."),
    ] = "operator",
    project: Annotated[str | None, typer.Option(help="Name of the one project it sees.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    data: DataOption = DATA,
) -> None:
    """Make a key and print it, this once."""
    from app.core.clock import utc_now
    from app.keys.service import create_key

    expires = utc_now() + timedelta(days=days) if days else None
    with _session(data) as session:
        project_id = _project_id(session, project)
        made = create_key(session, name=name, role=role, project_id=project_id, expires_at=expires)
    err.print(f"The {role} key of {name!r}, shown this once:")
    out.print(made.plaintext, highlight=False, soft_wrap=True)


@keys.command("list")
def list_(data: DataOption = DATA) -> None:
    """List all keys, revoked ones too; never the keys themselves."""
    with _session(data) as session:
        rows = _all_keys(session)
    table = Table("Begins with", "Name", "Role", "Project", "Made", "Expires", "Revoked")
    for row in rows:
        project = str(row.project_id) if row.project_id else "all"
        times = [_day(moment) for moment in (row.created_at, row.expires_at, row.revoked_at)]
        table.add_row(row.prefix, row.name, row.role, project, *times)
    out.print(table)


@keys.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="What the key begins with, as `list` shows it.")],
    data: DataOption = DATA,
) -> None:
    """Revoke a key; the gateway refuses it within a second."""
    from app.keys.service import revoke_key

    with _session(data) as session:
        found = [row for row in _all_keys(session) if row.prefix == prefix]
        if not found:
            raise BadInput(
                f"No key begins with {prefix!r}.",
                fix="Take what stands under 'Begins with' in `shotline keys list`.",
                field="prefix",
            )
        for row in found:
            revoke_key(session, _box(), row.id)
    out.print(f"Revoked {prefix}.", highlight=False)


@contextlib.contextmanager
def _session(data: Path) -> "Iterator[Session]":
    """Open one transaction on the database of the box."""
    from app.core.audit import acting
    from app.core.database import Database

    database = Database.of(settings_of(data))
    try:
        with acting(_box().name), database.unit_of_work() as session:
            yield session
    finally:
        database.close()


def _box() -> "Principal":
    """Whoever can run this command on the box may do everything."""
    from app.core.access import Principal

    return Principal(None, "the command line", "admin")


def _all_keys(session: "Session") -> "list[ApiKey]":
    from app.keys.service import list_keys

    return list(list_keys(session, _box(), after=None, limit=10_000))


def _project_id(session: "Session", name: str | None) -> "UUID | None":
    from app.projects.service import list_projects

    if name is None:
        return None
    found = list_projects(session, _box(), name=name, after=None, limit=1)
    if not found:
        raise BadInput(
            f"No project is called {name!r}.",
            fix="Check the name, or leave it out for a key to all projects.",
            field="project",
        )
    return found[0].id


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else "-"
