"""The `shotline` command: one file per sub-command beside this one."""

import os
from typing import Annotated

import typer

from app.cli.audit import audit
from app.cli.backbones import backbones
from app.cli.backup import backup
from app.cli.bench import bench
from app.cli.bundle import bundle
from app.cli.console import ShotlineGroup, out
from app.cli.doctor import doctor
from app.cli.enough import enough
from app.cli.inspect import inspect
from app.cli.keys import keys
from app.cli.lines import freeze, promote, review, rollback
from app.cli.predict import predict
from app.cli.processes import migrate, serve, worker
from app.cli.push import push
from app.cli.quantize import quantize
from app.cli.report import report
from app.cli.restore import restore
from app.cli.tune import tune
from app.cli.up import up
from app.cli.verify import verify

_CORE, _SERVICE, _PROCESSES = "On files", "The service", "Single processes, for a supervisor"

app = typer.Typer(
    cls=ShotlineGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Few-shot visual inspection on the factory's own machine.",
)
app.command(rich_help_panel=_CORE)(tune)
app.command(rich_help_panel=_CORE)(predict)
app.command(rich_help_panel=_CORE)(inspect)
app.command(rich_help_panel=_CORE)(report)
app.command(rich_help_panel=_CORE)(enough)
app.command(rich_help_panel=_CORE)(bench)
app.command(rich_help_panel=_SERVICE)(up)
app.command(rich_help_panel=_SERVICE)(push)
app.command(rich_help_panel=_SERVICE)(promote)
app.command(rich_help_panel=_SERVICE)(rollback)
app.command(rich_help_panel=_SERVICE)(freeze)
app.command(rich_help_panel=_SERVICE)(review)
app.command(rich_help_panel=_SERVICE)(quantize)
app.command(rich_help_panel=_SERVICE)(backup)
app.command(rich_help_panel=_SERVICE)(restore)
app.command(rich_help_panel=_SERVICE)(verify)
app.command(rich_help_panel=_SERVICE)(doctor)
app.command(rich_help_panel=_SERVICE)(bundle)
app.add_typer(keys, name="keys", rich_help_panel=_SERVICE)
app.add_typer(audit, name="audit", rich_help_panel=_SERVICE)
app.add_typer(backbones, name="backbones", rich_help_panel=_SERVICE)
app.command(rich_help_panel=_PROCESSES)(serve)
app.command(rich_help_panel=_PROCESSES)(worker)
app.command(rich_help_panel=_PROCESSES)(migrate)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out.print(f"shotline {version('shotline')}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Few-shot visual inspection on the factory's own machine."""


def main() -> None:
    """Run the command line."""
    # Before torch is imported: its threads sleep while they wait for each other. Those that spin
    # cost several times the work as soon as another process wants the cores (ADR 006).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()


if __name__ == "__main__":
    main()
