"""How long work tells how far it is."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
# Begins a phase of the work, such as "Copying blobs", and returns how to tell how far it is.
Phases = Callable[[str], Progress]


def no_progress(done: int, total: int) -> None:
    """Take note of nothing."""
    del done, total


def no_phases(title: str) -> Progress:
    """Take note of no phase."""
    del title
    return no_progress
