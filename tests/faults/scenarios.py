"""Scenarios of `benchmarks.faults` in small."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.faults.__main__ import Scenario


def run_small(scenario: Scenario) -> dict[str, Any]:
    """Run a scenario in small; fail where something that has to hold does not."""
    folder = Path(tempfile.mkdtemp(prefix="sl-"))  # short: a socket's path has 107 bytes at most
    try:
        found = scenario.run(folder, quick=True, report=print)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    broken = [check for check, held in found["checks"].items() if not held]
    assert not broken, (broken, {name: found[name] for name in found if name != "samples"})
    return found
