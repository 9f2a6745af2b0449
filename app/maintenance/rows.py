"""Rows of any table as JSON, the same from SQLite and from PostgreSQL.

Columns are taken from the database itself and not from `app.core.tables`: a backup can be taken of
a database, and restored to one, that is at an older revision than the code.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.types import TypeEngine

from app.core.types import Json, UtcDateTime

Kind = Literal["uuid", "time", "json", "boolean", "integer", "float", "bytes", "text"]

REVISIONS: Final = "alembic_version"
_AT_ONCE = 1000  # rows that are read or written together


class _Form(NamedTuple):
    """How values of a kind are read from a database, and written as JSON and back."""

    column: TypeEngine[Any]
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


_FORMS: Final[dict[Kind, _Form]] = {
    "uuid": _Form(sa.Uuid(), str, UUID),
    "time": _Form(UtcDateTime(), datetime.isoformat, datetime.fromisoformat),
    "json": _Form(Json, _same, _same),
    "boolean": _Form(sa.Boolean(), bool, bool),
    "integer": _Form(sa.BigInteger(), int, int),
    "float": _Form(sa.Float(53), float, float),
    "bytes": _Form(
        sa.LargeBinary(), lambda value: base64.b64encode(value).decode(), base64.b64decode
    ),
    "text": _Form(sa.Text(), str, str),
}
# The first one that fits decides: a BOOLEAN is reflected as one, a CHAR(32) is SQLite's UUID.
_KINDS: Final[tuple[tuple[type[TypeEngine[Any]], Kind], ...]] = (
    (sa.Boolean, "boolean"),
    (sa.Integer, "integer"),
    (sa.Float, "float"),
    (sa.DateTime, "time"),
    (sa.JSON, "json"),
    (sa.Uuid, "uuid"),
    (sa.CHAR, "uuid"),
    (sa.LargeBinary, "bytes"),
    (sa.String, "text"),
)


def columns_of(connection: Connection) -> dict[str, dict[str, Kind]]:
    """Return the kinds of all columns by table, a table after those that it refers to."""
    inspector = sa.inspect(connection)
    names = [name for name, _ in inspector.get_sorted_table_and_fkc_names() if name]
    return {
        name: {str(column["name"]): kind_of(column["type"]) for column in columns}
        for name in names
        if name != REVISIONS and (columns := inspector.get_columns(name))
    }


def kind_of(column: TypeEngine[Any]) -> Kind:
    """Return the kind of a reflected column's type.

    Raises:
        ValueError: no kind is known for it.
    """
    for known, kind in _KINDS:
        if isinstance(column, known):
            return kind
    raise ValueError(f"no form is known for columns of the type {column!r}")


def table_of(name: str, columns: Mapping[str, Kind]) -> sa.TableClause:
    """Return the table as SQL takes it, with types that mean the same on both databases."""
    return sa.table(name, *(sa.column(key, _FORMS[kind].column) for key, kind in columns.items()))


def read_rows(
    connection: Connection, name: str, columns: Mapping[str, Kind]
) -> Iterator[list[Any]]:
    """Yield each row as a list of JSON values in the order of `columns`."""
    forms = [_FORMS[kind] for kind in columns.values()]
    query = sa.select(table_of(name, columns))
    with connection.execute(query, execution_options={"yield_per": _AT_ONCE}) as found:
        for row in found:
            yield [
                None if value is None else form.encode(value)
                for form, value in zip(forms, row, strict=True)
            ]


def write_rows(
    connection: Connection, name: str, columns: Mapping[str, Kind], rows: Iterator[Sequence[Any]]
) -> int:
    """Insert rows as `read_rows` yields them; return how many.

    Raises:
        ValueError, TypeError: a row that does not fit the columns.
    """
    table, written = table_of(name, columns), 0
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append(_decoded(columns, row))
        if len(waiting) == _AT_ONCE:
            connection.execute(sa.insert(table), waiting)
            written += len(waiting)
            waiting = []
    if waiting:
        connection.execute(sa.insert(table), waiting)
    return written + len(waiting)


def _decoded(columns: Mapping[str, Kind], row: Sequence[Any]) -> dict[str, Any]:
    return {
        key: None if value is None else _FORMS[kind].decode(value)
        for (key, kind), value in zip(columns.items(), row, strict=True)
    }
