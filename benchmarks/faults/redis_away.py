"""Redis is gone for a minute, then hangs for a minute; the work goes on by itself afterwards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.redis import Fault, away, hung, try_faults

_AWAY, _QUICK_AWAY = 60.0, 3.0  # seconds
FAULTS: Final[dict[str, Fault]] = {"gone": away, "hung": hung}


def run(home: Path, *, quick: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """See `benchmarks.faults.redis`."""
    return try_faults(home, FAULTS, _QUICK_AWAY if quick else _AWAY, quick=quick, report=report)
