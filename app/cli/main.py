"""The `shotline` command: one file per sub-command beside this one."""

import typer

from app.cli.console import ShotlineGroup
from app.cli.inspect import inspect
from app.cli.predict import predict
from app.cli.tune import tune

app = typer.Typer(
    cls=ShotlineGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Few-shot visual inspection on the factory's own machine.",
)
app.command()(tune)
app.command()(predict)
app.command()(inspect)


def main() -> None:
    """Run the command line."""
    app()
