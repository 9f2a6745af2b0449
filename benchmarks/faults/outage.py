"""Ten minutes without PostgreSQL and Redis: the line goes on, and all comes back unaided."""

from pathlib import Path
from typing import Any

from benchmarks.faults.__main__ import Report
from benchmarks.faults.postgres import Fault, Servers, stormed

# So many that some predictions cannot wait, and have to be counted.
_RECORDS, _QUICK_RECORDS = 4000, 40

FAULT = Fault("PostgreSQL and Redis away", Servers.all_away, 600, 8)


def run(home: Path, *, quick: bool, report: Report) -> dict[str, Any]:
    """See `benchmarks.faults.__main__.Scenario`."""
    records = _QUICK_RECORDS if quick else _RECORDS
    found = stormed(home, [FAULT], quick=quick, report=report, record_queue=records, rate=10)
    lost = found["records_lost"]["counted"]
    found["checks"]["more came than can wait"] = lost > 0
    return found
