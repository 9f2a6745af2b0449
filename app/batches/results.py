"""The result of a batch: lines of JSON as the worker keeps them, and the same as CSV.

One part is read at a time; never is the whole result in memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from app.batches.repository import BatchRow
from app.core.jobs import Failure
from app.core.spreadsheet import cell, csv_bytes
from app.core.storage import Storage

Line = dict[str, Any]


class Result(NamedTuple):
    """What there is of a batch's result.

    Attributes:
        storage: holds the parts.
        parts: the sha256 of each, in their order.
        labels: the names of the version's classes, in their order.
    """

    storage: Storage
    parts: Sequence[str]
    labels: Sequence[str]

    def ndjson(self) -> Iterator[bytes]:
        """Yield the parts as they are."""
        for sha256 in self.parts:
            yield self.storage.read(sha256)

    def lines(self) -> Iterator[list[Line]]:
        """Yield the lines of each part."""
        for part in self.ndjson():
            yield [json.loads(line) for line in part.splitlines()]

    def csv(self) -> Iterator[bytes]:
        """Yield CSV (RFC 4180) in UTF-8, a part at a time."""
        yield csv_bytes([[cell(name) for name in columns(self.labels)]])
        for part in self.lines():
            yield csv_bytes(self._cells(line) for line in part)

    def _cells(self, line: Line) -> list[str]:
        values = row_of(line, self.labels)
        return [_shown(value) for value in values]


def labels_of(row: BatchRow) -> list[str]:
    """Return the names of the version's classes, in their order."""
    return [spec["name"] for spec in row.version.classes]


def columns(labels: Sequence[str]) -> list[str]:
    """Return the names of the columns; a class's begins with `probability_`."""
    return [
        "index",
        "name",
        "decision",
        "reason",
        "label",
        "probability",
        *(f"probability_{label}" for label in labels),
        "version",
        "model_digest",
        "error",
    ]


def row_of(line: Line, labels: Sequence[str]) -> list[Any]:
    """Return the values of the columns; None where there is none.

    A class that `top_k` left out has no probability, an image with a problem has an error alone.
    """
    found = {entry["label"]: entry["probability"] for entry in line.get("probabilities", ())}
    error = line.get("error")
    return [
        line["index"],
        line["name"],
        line.get("decision"),
        line.get("reason"),
        line.get("label"),
        line.get("probability"),
        *(found.get(label) for label in labels),
        line["model"]["version"],
        line["model"]["digest"],
        None if error is None else f"{error['problem']} {error['fix']}",
    ]


def as_line(
    index: int, name: str, model: Mapping[str, Any], *, said: Mapping[str, Any] | Failure
) -> bytes:
    """Return a line of NDJSON.

    Args:
        index: the image's place in the batch.
        name: what the sender called it.
        model: the version: id, version, digest.
        said: the decision's fields, or a failure, which is put under `error`.
    """
    shown: Mapping[str, Any] = {"error": said} if "problem" in said else said
    line = {"index": index, "name": name, **shown, "model": model}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    return cell(value) if isinstance(value, str | None) else str(value)
