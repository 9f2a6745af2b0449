"""Redis is gone for a minute while there is work; it goes on by itself afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.redis import MINUTE, QUICK_AWAY, away, try_faults


def run(home: Path, *, quick: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """See `benchmarks.faults.redis`."""
    return try_faults(home, {"gone": away}, QUICK_AWAY if quick else MINUTE, report, quick=quick)
