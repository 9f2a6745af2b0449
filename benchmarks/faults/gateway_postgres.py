"""The gateway is killed at random moments of uploads, promotions and predictions, on PostgreSQL."""

from pathlib import Path
from typing import Any

from benchmarks.faults import gateway
from benchmarks.faults.__main__ import Report
from tests.integration.stoppable import Postgres


def run(home: Path, *, quick: bool, report: Report) -> dict[str, Any]:
    """See `benchmarks.faults.__main__.Scenario`."""
    server = Postgres()
    try:
        return gateway.killed(home, server.url, quick=quick, report=report)
    finally:
        server.remove()
