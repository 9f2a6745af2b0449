"""What rows refer to: other rows, by the keys that the database itself has, and blobs."""

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from app.core.sweep import REFERENCES


class Broken(NamedTuple):
    """Rows of a table that refer to none of another one.

    Attributes:
        table: holds the rows.
        columns: that refer.
        parent: what they refer to.
        rows: how many there are.
    """

    table: str
    columns: tuple[str, ...]
    parent: str
    rows: int

    @property
    def problem(self) -> str:
        """What is wrong, in a sentence."""
        count = f"{self.rows} rows" if self.rows > 1 else "one row"
        columns = ", ".join(self.columns)
        return f"{count} of {self.table}: {columns} refers to nothing in {self.parent}."


def broken_references(connection: Connection, tables: Iterable[str]) -> Iterator[Broken]:
    """Yield the broken foreign keys of the tables; the rows of a key together."""
    inspector = sa.inspect(connection)
    for table in tables:
        for key in inspector.get_foreign_keys(table):
            columns, parent = tuple(key["constrained_columns"]), key["referred_table"]
            rows = _count(connection, table, columns, parent, key["referred_columns"])
            if rows:
                yield Broken(table, columns, parent, rows)


def _count(
    connection: Connection,
    table: str,
    columns: tuple[str, ...],
    parent: str,
    parent_columns: list[str],
) -> int:
    child = sa.table(table, *(sa.column(name) for name in columns)).alias("child")
    other = sa.table(parent, *(sa.column(name) for name in parent_columns)).alias("parent")
    same = sa.and_(
        *(
            other.c[there] == child.c[here]
            for here, there in zip(columns, parent_columns, strict=True)
        )
    )
    query = (
        sa.select(sa.func.count())
        .select_from(child)
        .where(*(child.c[name].is_not(None) for name in columns), ~sa.exists().where(same))
    )
    return int(connection.scalar(query) or 0)


def named_blobs(connection: Connection, columns: Mapping[str, Container[str]]) -> dict[str, str]:
    """Return every blob that a row names, with the first table and column that does.

    Args:
        connection: the database, at any revision.
        columns: its tables and their columns.
    """
    named: dict[str, str] = {}
    for reference in REFERENCES:
        table, column = reference.class_.__tablename__, reference.key
        if column in columns.get(table, ()):
            query = sa.select(sa.column(column, sa.Text())).select_from(sa.table(table)).distinct()
            for sha256 in connection.scalars(query):
                if sha256 is not None:
                    named.setdefault(sha256, f"{table}.{column}")
    return named
