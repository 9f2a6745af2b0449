"""Disks fill: the body of an upload, a blob, a commit, a thumbnail."""

from benchmarks.faults import disk
from tests.faults.scenarios import run_small


def test_a_full_disk_refuses_what_needs_it_and_nothing_else() -> None:
    found = run_small(disk)
    assert [*found["points"]] == ["spooled body", "blob", "commit", "thumbnail"]
