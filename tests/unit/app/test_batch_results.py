"""The result of a batch: one content in three forms."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from app.batches.parquet import read_chunks, write_parquet
from app.batches.results import Result, as_line, columns
from app.core.errors import Unavailable
from app.core.jobs import Failure
from app.core.storage import LocalStorage

LABELS = ["good", "=傷", "other"]
MODEL = {"id": "01a20b55-77aa-7c01-8f1e-2d9a6b3c4e5f", "version": 7, "digest": "sha256:2c26"}


def decided(label: str, probability: float, **others: float) -> dict[str, Any]:
    shares = {label: probability} | others
    return {
        "decision": "ng",
        "reason": "certain",
        "label": label,
        "probability": probability,
        "probabilities": [{"label": name, "probability": p} for name, p in shares.items()],
        "prediction_set": [label],
    }


@pytest.fixture
def result(tmp_path: Path) -> Result:
    """Two parts: two decisions, of which one lists a single class; and a problem."""
    storage = LocalStorage(tmp_path / "blobs")
    parts = [
        as_line(0, "=1+1.png", MODEL, said=decided("=傷", 0.9, good=0.07, other=0.03))
        + as_line(1, 'b,"c.png', MODEL, said=decided("good", 0.5)),
        as_line(2, "-c", MODEL, said=Failure(problem="No image.", fix="Send one.")),
    ]
    return Result(storage, [storage.put(part) for part in parts], LABELS)


def rows_of_csv(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def test_csv_has_a_column_for_each_class(result: Result) -> None:
    first, second, third = rows_of_csv(b"".join(result.csv()))
    assert list(first) == columns(LABELS)
    assert first == {
        "index": "0",
        "name": "'=1+1.png",
        "decision": "ng",
        "reason": "certain",
        "label": "'=傷",
        "probability": "0.900000",
        "probability_good": "0.070000",
        "probability_=傷": "0.900000",
        "probability_other": "0.030000",
        "version": "7",
        "model_digest": "sha256:2c26",
        "error": "",
    }
    assert second["name"] == 'b,"c.png'
    assert (second["probability_good"], second["probability_other"]) == ("0.500000", "")
    assert third["error"] == "No image. Send one."
    assert third["name"] == "'-c"  # no spreadsheet takes it for a formula
    assert {third[name] for name in ("decision", "reason", "label", "probability")} == {""}


def test_ndjson_is_what_the_worker_wrote(result: Result) -> None:
    lines = [json.loads(line) for line in b"".join(result.ndjson()).splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert lines[0] == {"index": 0, "name": "=1+1.png", "model": MODEL} | decided(
        "=傷", 0.9, good=0.07, other=0.03
    )
    assert lines[2] == {
        "index": 2,
        "name": "-c",
        "error": {"problem": "No image.", "fix": "Send one."},
        "model": MODEL,
    }


def test_parquet_holds_the_same_with_types(result: Result, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    data = b"".join(read_chunks(write_parquet(result, tmp_path)))
    table = parquet.read_table(io.BytesIO(data))
    assert table.column_names == columns(LABELS)
    first, second, third = table.to_pylist()
    assert first == {
        "index": 0,
        "name": "=1+1.png",
        "decision": "ng",
        "reason": "certain",
        "label": "=傷",
        "probability": 0.9,
        "probability_good": 0.07,
        "probability_=傷": 0.9,
        "probability_other": 0.03,
        "version": 7,
        "model_digest": "sha256:2c26",
        "error": None,
    }
    assert second["probability_other"] is None
    assert third["decision"] is None
    assert third["error"] == "No image. Send one."


def test_parquet_of_nothing_is_a_table_without_rows(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    nothing = Result(LocalStorage(tmp_path / "blobs"), [], LABELS)
    data = b"".join(read_chunks(write_parquet(nothing, tmp_path)))
    table = parquet.read_table(io.BytesIO(data))
    assert (table.num_rows, table.column_names) == (0, columns(LABELS))


def test_without_pyarrow_the_fix_is_named(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unavailable) as caught:
        write_parquet(result, tmp_path)
    assert "shotline[parquet]" in caught.value.fix
    assert "format=csv" in caught.value.fix
