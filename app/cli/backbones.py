"""`shotline backbones`: checkpoints taken over from a USB stick, and what is there."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from app.cli.console import err, out, plain, progress_bar
from app.cli.data_folder import DATA, DataOption
from app.cli.options import JsonOption

if TYPE_CHECKING:
    from app.core.settings import Settings

backbones = typer.Typer(no_args_is_help=True, help="Take over and list backbones.")

FolderOption = Annotated[
    Path | None,
    typer.Option("--folder", help="Where backbones are kept, if not in the data folder."),
]


@backbones.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(help="A folder in open_clip's local-dir form, or a checkpoint file."),
    ],
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="What the weights have to have; else refused.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The name that it gets; its own else.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Of a checkpoint file, such as ViT-B-32.")
    ] = None,
    folder: FolderOption = None,
    data: DataOption = DATA,
    as_json: JsonOption = False,
) -> None:
    """Check a backbone, load it once and copy it into the data folder."""
    from app.core.logging import configure_logging
    from app.maintenance.backbones import import_backbone

    settings = _settings(data)
    configure_logging(settings.log.model_copy(update={"level": "warning"}))
    with progress_bar() as bar:
        task = bar.add_task("Copying", total=None, note="")
        made = import_backbone(
            file,
            folder or settings.home / "backbones",
            name=name,
            sha256=sha256,
            architecture=architecture,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        out.print_json(data=asdict(made) | {"line": made.line})
        return
    err.print(plain(f"Took over {made.name}; its weights have the sha256 {made.sha256}."))
    err.print(plain(f"Versions tuned on it are bound to {made.digest}."))
    err.print("Put this line into .env, or set the variable, and start gateway and worker again:")
    out.print(plain(made.line), soft_wrap=True)


@backbones.command("list")
def list_(
    folder: FolderOption = None, data: DataOption = DATA, as_json: JsonOption = False
) -> None:
    """List the backbones that are there; the one that is configured is marked."""
    from app.maintenance.backbones import list_backbones

    settings = _settings(data)
    found = list_backbones(folder or settings.home / "backbones")
    configured = settings.backbone.name
    if as_json:
        out.print_json(
            data=[
                {
                    "name": one.name,
                    "source": one.source,
                    "used": one.source == configured,
                    "imported": None if one.imported is None else asdict(one.imported),
                }
                for one in found
            ]
        )
        return
    table = Table("", "Name", "SHOTLINE_BACKBONE_SOURCE", "Digest", "Imported")
    table.add_row(*_row(configured, "starter", "starter", "comes with Shotline", ""))
    for one in found:
        by_hand = ("copied by hand", "")
        made = one.imported
        about = by_hand if made is None else (made.digest[:19] + "…", made.imported_at[:10])
        table.add_row(*_row(configured, one.name, one.source or "not a backbone", *about))
    out.print(table)
    if configured not in {"starter", *(one.source for one in found)}:
        err.print(plain(f"Configured is another: {configured}"), soft_wrap=True)


def _row(configured: str, name: str, source: str, digest: str, day: str) -> list[str | Text]:
    return ["*" if source == configured else "", plain(name), plain(source), digest, day]


def _settings(data: Path) -> "Settings":
    from app.core.settings import ServerSettings, Settings

    return Settings(server=ServerSettings(home=data))
