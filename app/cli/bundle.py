"""`shotline bundle`: one archive for a box without a network."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.console import err, out, plain
from app.cli.options import JsonOption, check_output
from models.errors import BadInput

_ENDINGS = (".tar", ".tar.gz", ".tgz")


def bundle(
    file: Annotated[Path, typer.Argument(metavar="OUT", help="The archive: .tar or .tar.gz.")],
    wheels: Annotated[
        Path | None, typer.Option(help="A folder of wheels, instead of those that pip gets.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option(help="A container image, instead of the compose file's.")
    ] = None,
    backbone: Annotated[
        list[Path] | None, typer.Option(help="A backbone, instead of the configured one.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="images, wheels or backbones: leave that part out."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Pack images, wheels, backbones and an installer for a box without a network."""
    from app.core.disk import shown_bytes
    from app.core.settings import Settings
    from app.maintenance.bundle import PARTS, Wanted, make_bundle

    if not file.name.endswith(_ENDINGS):
        raise BadInput(
            f"The name {file.name!r} ends with none of {', '.join(_ENDINGS)}.",
            fix="Call it shotline.tar, for example.",
            field="out",
        )
    for part in without or []:
        if part not in PARTS:
            raise BadInput(
                f"A bundle has no part {part!r}.",
                fix=f"Give --without one of {', '.join(PARTS)}.",
                field="without",
            )
    check_output(file, force=force)
    wanted = Wanted(image or [], wheels, backbone or [], frozenset(without or []))
    with err.status("Starting …") as status:
        made = make_bundle(
            file, wanted, Settings().backbone.name, lambda what: status.update(f"{what} …")
        )
    if as_json:
        out.print_json(data=made._asdict() | {"path": str(made.path)})
        return
    for name, size in made.parts.items():
        err.print(f"{name}: {shown_bytes(size)}", highlight=False)
    out.print(plain(f"{made.sha256}  {made.path}"), soft_wrap=True)
    err.print("Carry it over, unpack it with `tar -xf`, and run install.sh there.")
