"""Requests made from the OpenAPI document, for half a minute: no 5xx, nothing undocumented."""

from pathlib import Path

import pytest

from benchmarks.faults import schemathesis_run


def test_the_document_is_what_the_gateway_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = schemathesis_run.run(tmp_path, quick=True, report=print)
    assert found["requests"] > 300
    assert {entry["key"] for entry in found["rounds"]} == {True, False}
    assert min(entry["operations"] for entry in found["rounds"]) > 40
    broken = [check for check, held in found["checks"].items() if not held]
    said = [entry.get("said") for entry in found["rounds"]]
    assert not broken, (broken, found["statuses"], said)
