"""CSV that spreadsheets open without harm."""

import csv
import io
from collections.abc import Iterable, Sequence


def cell(text: str | None) -> str:
    """Return text that no spreadsheet takes for a formula."""
    text = text or ""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def csv_bytes(lines: Iterable[Sequence[str]]) -> bytes:
    """Return the lines as CSV in UTF-8."""
    out = io.StringIO()
    csv.writer(out).writerows(lines)
    return out.getvalue().encode()
