"""`shotline doctor`: what is wrong with this box, or with a folder of images; and what to do."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from app.cli.console import err, out, plain, progress_bar
from app.cli.data_folder import DATA, DataOption
from app.cli.options import BackboneOption, DeviceOption, JsonOption
from models.errors import BadInput

if TYPE_CHECKING:
    from app.maintenance.doctor import Finding

_MARKS = {"ok": ("\N{CHECK MARK}", "green"), "warning": ("!", "yellow"), "error": ("x", "bold red")}


_IMAGES = "With a folder of images"
_BOX = "Without: of this box"


def doctor(
    folder: Annotated[
        Path | None,
        typer.Argument(help="One sub-folder of photographs per class: look at these, not the box."),
    ] = None,
    holdout: Annotated[
        Path | None,
        typer.Option(
            help="Such a folder of images to test on: none may be a copy.", rich_help_panel=_IMAGES
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="A line per image: path, tab, part. Images of a part are alike.",
            rich_help_panel=_IMAGES,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page with the images.", rich_help_panel=_IMAGES),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the page.", rich_help_panel=_IMAGES)
    ] = False,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    data: DataOption = DATA,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="SHOTLINE_URL",
            help="Where the gateway is; else it is looked for.",
            rich_help_panel=_BOX,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look at this box and its service; with FOLDER, look at labelled photographs instead.

    Nothing is changed. Exit code 1 where a check of the box fails or a finding on the images is
    serious, 2 where it cannot be looked at.
    """
    if folder is not None:
        from app.cli.doctor_images import Look, doctor_images

        look = Look(folder, holdout, groups, backbone, device)
        if doctor_images(look, html=html, force=force, as_json=as_json):
            raise typer.Exit(1)
        return
    if given := [name for name, value in (("--holdout", holdout), ("--groups", groups),
                                          ("--html", html)) if value is not None]:  # fmt: skip
        raise BadInput(
            f"{given[0]} is for a folder of images, and none is named.",
            fix="Write `shotline doctor FOLDER`, or leave the option out.",
            field=given[0].removeprefix("--"),
        )
    _doctor_box(data, url, as_json=as_json)


def _doctor_box(data: Path, url: str | None, *, as_json: bool) -> None:
    from app.maintenance.doctor import Finding, worst

    try:
        found = _examine(data, url)
    except BadInput as error:  # a variable that cannot be used: nothing else can be looked at
        found = [Finding("settings", "error", error.problem, error.fix)]
    status = worst(found)
    if as_json:
        out.print_json(data={"status": status, "findings": [asdict(one) for one in found]})
    else:
        out.print(_table(found))
        counts = {name: sum(one.status == name for one in found) for name in ("error", "warning")}
        err.print(f"{counts['error']} errors, {counts['warning']} warnings.")
    if status == "error":
        raise typer.Exit(1)


def _examine(data: Path, url: str | None) -> "list[Finding]":
    from app.core.logging import configure_logging
    from app.core.settings import ServerSettings, Settings
    from app.maintenance.doctor import Box, examine
    from app.maintenance.doctor_service import CHECKS

    settings = Settings(server=ServerSettings(home=data))
    configure_logging(settings.log.model_copy(update={"level": "error"}))
    with progress_bar() as bar, closing(Box.of(settings, url)) as box:
        task = bar.add_task("Looking", total=len(CHECKS), note="")

        def told(name: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, note=name)

        return examine(box, CHECKS, told)


def _table(found: "Sequence[Finding]") -> Table:
    table = Table(show_lines=False)
    for heading in ("", "Check", "Found", "Fix"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("", "Check"))
    for one in found:
        mark, style = _MARKS[one.status]
        table.add_row(Text(mark, style), one.check, plain(one.found), plain(one.fix or ""))
    return table
