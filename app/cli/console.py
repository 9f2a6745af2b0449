"""What the commands share: where they write, and how they fail."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from typer.core import TyperGroup

from models.errors import ShotlineError
from models.names import printable
from models.progress import Phases

# Results go to standard output, all else to standard error: a pipe sees results alone.
out = Console()
err = Console(stderr=True)

_LONGEST = 10_000  # characters of a path or message that are shown

# What people read while a tuning is in one of its phases.
PHASES = {
    "features": "Encoding images",
    "search": "Searching for a recipe, seconds",
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


def plain(text: object) -> Text:
    """Return `text` fit to be printed as it is: names and paths are no markup and no emoji codes.

    A path can hold bytes that are no UTF-8, and characters that a terminal would obey.
    """
    return Text(printable(str(text), _LONGEST))


def fail(error: ShotlineError) -> None:
    """Say what is wrong and what to do about it."""
    err.print(Text("Error: ", "bold red"), plain(error.problem), soft_wrap=True, sep="")
    err.print(Text("Fix:   ", "bold"), plain(error.fix), soft_wrap=True, sep="")


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


@contextmanager
def progress_phases() -> Iterator[Phases]:
    """Show a bar for each phase of some work."""
    with progress_bar() as bar:

        def phase(title: str) -> Callable[[int, int], None]:
            task = bar.add_task(title, total=None, note="")
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield phase


@contextmanager
def stoppable(message: str) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block in order, then say `message`; the exit code is 130."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        err.print(plain(f"Stopped. {message}"), soft_wrap=True)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
