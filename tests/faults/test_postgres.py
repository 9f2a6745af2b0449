"""PostgreSQL fails in several ways; then it and Redis are away together."""

from benchmarks.faults import outage, postgres
from tests.faults.scenarios import run_small


def test_connections_dropped_a_restart_and_seconds_without_it() -> None:
    run_small(postgres)


def test_seconds_without_the_database_and_without_redis() -> None:
    found = run_small(outage)
    assert found["records_lost"]["counted"] > 0
