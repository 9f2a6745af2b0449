"""PostgreSQL fails in several ways; then it and Redis are away together."""

from pathlib import Path
from typing import Any

from benchmarks.faults import outage, postgres
from benchmarks.faults.__main__ import Report
from tests.faults.scenarios import run_small


class EveryFault:
    """All of them to one gateway and one worker."""

    def run(self, home: Path, *, quick: bool, report: Report) -> dict[str, Any]:
        faults = [*postgres.FAULTS, outage.FAULT]
        return postgres.stormed(home, faults, quick=quick, report=report, record_queue=40)


def test_the_line_goes_on_and_all_comes_back() -> None:
    found = run_small(EveryFault())
    assert len(found["faults"]) == 4
    assert found["records_lost"]["counted"] > 0  # more came than could wait
