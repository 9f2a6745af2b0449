"""What the commands share: where they write, and how they fail."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from typer.core import TyperGroup

from models.errors import ShotlineError

# Results go to standard output, all else to standard error: a pipe sees results alone.
out = Console()
err = Console(stderr=True)

# What people read while a tuning is in one of its phases.
PHASES = {
    "features": "Encoding images",
    "tune": "Tuning prompts",
    "evaluate": "Measuring accuracy",
}


class ShotlineGroup(TyperGroup):
    """Turns an error of the tree into two lines on standard error and exit code 2."""

    def invoke(self, ctx: Any) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ShotlineError as error:
            fail(error)
            raise typer.Exit(2) from error


def fail(error: ShotlineError) -> None:
    """Say what is wrong and what to do about it."""
    err.print(f"[bold red]Error:[/] {escape(error.problem)}", soft_wrap=True, highlight=False)
    err.print(f"[bold]Fix:[/]   {escape(error.fix)}", soft_wrap=True, highlight=False)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show bars on standard error with the time that is left; nothing where it is no terminal."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=err,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        yield bar
