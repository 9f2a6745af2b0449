"""The result of a batch as Parquet. Nothing else here imports pyarrow, which is an extra."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from app.batches.results import Result, columns, row_of
from app.core.errors import Unavailable
from models.errors import storage_errors

_ROWS_PER_GROUP = 4096
_CHUNK = 1 << 20


def write_parquet(result: Result, scratch: Path) -> IO[bytes]:
    """Return a file without a name that holds the result, read from its start.

    Raises:
        Unavailable: pyarrow is not installed.
        StorageFull: the scratch folder fills.
    """
    arrow, parquet = _import_pyarrow()
    schema = _schema(arrow, result.labels)
    scratch.mkdir(parents=True, exist_ok=True)
    with storage_errors(scratch / "parquet"):
        file = TemporaryFile(dir=scratch)  # noqa: SIM115 - whoever reads it closes it
        try:
            with parquet.ParquetWriter(file, schema) as writer:
                for rows in _groups(result):
                    arrays = [
                        arrow.array(values, field.type)
                        for values, field in zip(zip(*rows, strict=True), schema, strict=True)
                    ]
                    writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            file.seek(0)
        except BaseException:
            file.close()
            raise
    return file


def read_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is in the file, and close it."""
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _groups(result: Result) -> Iterator[list[list[Any]]]:
    """Yield some thousand rows at a time: each is a row group of the file."""
    rows: list[list[Any]] = []
    for part in result.lines():
        rows += [row_of(line, result.labels) for line in part]
        if len(rows) >= _ROWS_PER_GROUP:
            yield rows
            rows = []
    if rows:
        yield rows


def _schema(arrow: Any, labels: Sequence[str]) -> Any:
    named = {"index": arrow.int64(), "version": arrow.int64(), "probability": arrow.float64()}
    probabilities = {f"probability_{label}": arrow.float64() for label in labels}
    types = named | probabilities
    return arrow.schema([(name, types.get(name, arrow.string())) for name in columns(labels)])


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable(
            f"This gateway cannot write Parquet: {error}.",
            fix="Install it with pip install 'shotline[parquet]', or ask for format=csv.",
            field="format",
            retry_after=3600.0,
        ) from error
    return pyarrow, parquet
