"""`shotline verify`: whether everything that is kept is whole."""

from typing import TYPE_CHECKING

import typer
from rich.table import Table

from app.cli.console import err, out, plain, progress_phases, stoppable
from app.cli.data_folder import DATA, DataOption, settings_of
from app.cli.options import JsonOption

if TYPE_CHECKING:
    from app.maintenance.findings import Findings

_SHOWN = 100


def verify(data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """Look at every row, blob and artifact, and say what is wrong and how to mend it.

    Reads only; the service may run. The exit code is 1 where something is wrong.
    """
    from app.core.database import Database
    from app.core.storage import LocalStorage
    from app.maintenance.verify import verify as look

    settings = settings_of(data)
    database = Database.of(settings)
    try:
        with stoppable("Nothing was changed."), progress_phases() as phases:
            findings = look(database, LocalStorage(settings.blob_folder), phases=phases)
    finally:
        database.close()
    if as_json:
        out.print_json(
            data={
                "findings": [finding._asdict() for finding in findings.found],
                "information": findings.information,
                "checked": findings.checked,
            }
        )
    else:
        _print(findings)
    if findings.found:
        raise typer.Exit(1)


def _print(findings: "Findings") -> None:
    checked = ", ".join(f"{count} {what}" for what, count in findings.checked.items())
    for line in findings.information:
        err.print(plain(line), soft_wrap=True)
    if not findings.found:
        out.print(plain(f"All is well: {checked}."), soft_wrap=True)
        return
    table = Table(title=f"{len(findings.found)} findings", caption=checked)
    for heading in ("Check", "Where", "What is wrong", "What to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings.found[:_SHOWN]:
        table.add_row(*(plain(part) for part in finding))
    out.print(table)
    if len(findings.found) > _SHOWN:
        err.print(plain(f"{len(findings.found) - _SHOWN} more; --json lists all."))
