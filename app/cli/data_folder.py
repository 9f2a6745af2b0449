"""The data folder of the box, for commands that work on it without the service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import BadInput

if TYPE_CHECKING:
    from app.core.settings import Settings

DATA = Path("shotline-data")
DataOption = Annotated[
    Path,
    typer.Option("--data", envvar="SHOTLINE_HOME", help="The data folder of `shotline up`."),
]


def settings_of(data: Path) -> "Settings":
    """Return the settings of the service that keeps its files in `data`.

    Raises:
        BadInput: there is no database.
    """
    from app.core.settings import ServerSettings, Settings

    settings = Settings(server=ServerSettings(home=data))
    if settings.database.url is None and not (settings.home / "shotline.db").exists():
        raise BadInput(
            f"The folder {settings.home} holds no Shotline database.",
            fix="Name the data folder with --data, or start `shotline up` on it first.",
            field="data",
        )
    return settings
