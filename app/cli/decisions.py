"""Decisions on photographs, whoever made them, as a table, JSON or CSV."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from app.cli.console import plain
from app.core.spreadsheet import cell, csv_bytes
from models.errors import BadImage, ShotlineError
from models.names import printable
from models.trust.reasons import SENTENCES

COLUMNS = ("image", "decision", "reason", "label", "probability", "problem")

_COLOURS = {"ok": "green", "ng": "red", "undecidable": "yellow"}
_LONGEST = 10_000  # characters of a path or problem


class Decided(NamedTuple):
    """A photograph, and the decision on it as JSON or what stands against one."""

    image: Path
    outcome: dict[str, Any] | ShotlineError


def bad(image: Path, error: ShotlineError) -> Decided:
    """Return that there is no decision on `image`, which the problem then names."""
    return Decided(image, BadImage(f"{image}: {error.problem}", fix=error.fix))


def unreadable(image: Path, error: OSError) -> Decided:
    """Return that `image` cannot be read."""
    return Decided(image, BadImage(f"{image} cannot be read: {error}.", fix="Check the path."))


def problems(results: Sequence[Decided]) -> list[ShotlineError]:
    """Return what stands against decisions."""
    return [outcome for _, outcome in results if isinstance(outcome, ShotlineError)]


def as_json(results: Sequence[Decided]) -> list[dict[str, Any]]:
    """Return the decisions with the path of each."""
    return [
        {"image": str(path)} | answer
        for path, answer in results
        if not isinstance(answer, ShotlineError)
    ]


def as_table(results: Sequence[Decided]) -> Table:
    """Return the decisions for a person."""
    table = Table()
    table.add_column("Image", overflow="fold")
    table.add_column("Decision")
    table.add_column("Class", overflow="fold")
    table.add_column("Probability")
    table.add_column("Why", overflow="fold")
    for path, answer in results:
        if isinstance(answer, ShotlineError):
            continue
        table.add_row(
            plain(path),
            Text(answer["decision"], _COLOURS[answer["decision"]]),
            Text(answer["label"]),
            f"{answer['probability']:.3f}",
            Text(_sentence(answer)),
        )
    return table


def as_csv(results: Sequence[Decided]) -> bytes:
    """Return a line for each photograph in UTF-8, those without a decision too."""
    return csv_bytes([COLUMNS, *map(_line, results)])


def _line(decided: Decided) -> tuple[str, ...]:
    image, answer = cell(printable(str(decided.image), _LONGEST)), decided.outcome
    if isinstance(answer, ShotlineError):
        return (image, "", "", "", "", cell(printable(answer.problem, _LONGEST)))
    return (
        image,
        answer["decision"],
        answer.get("reason") or "",
        cell(answer["label"]),
        f"{answer['probability']:.6f}",
        "",
    )


def _sentence(answer: dict[str, Any]) -> str:
    """Return why, for people; nothing where an older gateway does not say."""
    reason = answer.get("reason")
    return "" if reason is None else SENTENCES.get(reason, reason)
