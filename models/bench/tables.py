"""CSV and TSV: a line per image, with its path and label."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.bench.listing import ListedImage, Listing, find_root, read_part
from models.errors import BadDataset

_NEEDED, _KNOWN = ("path", "label"), ("path", "label", "split", "group")


def list_table(path: Path, images: Path | None) -> Listing:
    """List the images of a table with the columns `path`, `label`, perhaps `split` and `group`.

    Classes are sorted by name.

    Raises:
        BadDataset: it cannot be read, lacks a column or a value, or names a missing file.
    """
    rows = list(_rows(path))
    if not rows:
        raise BadDataset(
            f"{path} lists no images.", fix="Give each image a line of its own.", field="folder"
        )
    root = find_root(path, images, [row["path"] for _, row in rows])
    listed = [
        ListedImage(
            name=row["path"],
            label=row["label"],
            read=(root / row["path"]).read_bytes,
            part=read_part(row["split"], path, f"Line {number}") if "split" in row else None,
            group=row.get("group") or None,
        )
        for number, row in rows
    ]
    return Listing(path, sorted({image.label for image in listed}), listed)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with the number of its last line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for row in reader:
                yield reader.line_num, _values(path, reader.line_num, row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadDataset(
            f"{path} cannot be read: {error}.",
            fix="Give a UTF-8 table with the columns path and label.",
            field="folder",
        ) from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if not set(_NEEDED) <= set(columns) or len(set(columns)) < len(columns):
        raise BadDataset(
            f"The columns of {path} are {', '.join(map(repr, columns)) or 'none'}.",
            fix=f"Begin it with a line of names, once each: {', '.join(_KNOWN)} (the last two may"
            " be left out).",
            field="folder",
        )


def _values(path: Path, number: int, row: dict[str, str | None]) -> dict[str, str]:
    values = {name: value.strip() for name in _KNOWN if (value := row.get(name)) is not None}
    if None in row or not all(values.get(name) for name in _NEEDED):
        raise BadDataset(
            f"Line {number} of {path} has no path and label in the columns of these names.",
            fix="Give each image a path and a label, with quotes around a value that holds the"
            " separator.",
            field="folder",
        )
    return values
