"""Redis breaks while there is work; in full by `python -m benchmarks.faults redis redis_away`."""

import tempfile
from pathlib import Path

from benchmarks.faults import redis


def test_nothing_that_was_queued_is_lost_with_redis_or_done_twice() -> None:
    # Not pytest's folder: the path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="shotline-") as home:
        found = redis.run(Path(home), quick=True, report=print)
    assert list(found["rounds"]) == ["killed"]
    assert found["checks"] == dict.fromkeys(found["checks"], True), found
