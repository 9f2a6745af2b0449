"""Redis hangs for a minute while there is work: it holds connections, and answers nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.redis import MINUTE, QUICK_AWAY, hung, try_faults


def run(home: Path, *, quick: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """See `benchmarks.faults.redis`."""
    return try_faults(home, {"hung": hung}, QUICK_AWAY if quick else MINUTE, report, quick=quick)
