"""Workers are killed while they work; in full by `python -m benchmarks.faults workers`."""

import tempfile
from pathlib import Path

from benchmarks.faults import workers


def test_whatever_is_killed_every_tuning_ends_once_and_right() -> None:
    # Not pytest's folder: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="shotline-") as home:
        found = workers.run(Path(home), quick=True, report=print)
    assert found["kills"] == 3
    assert found["checks"] == dict.fromkeys(found["checks"], True), found
