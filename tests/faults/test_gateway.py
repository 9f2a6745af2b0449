"""The gateway is killed in the midst of uploads, promotions and predictions."""

import pytest

from benchmarks.faults import gateway, gateway_postgres
from benchmarks.faults.__main__ import Scenario
from tests.faults.scenarios import run_small


@pytest.mark.parametrize("scenario", [gateway, gateway_postgres], ids=["sqlite", "postgresql"])
def test_what_was_answered_is_there(scenario: Scenario) -> None:
    found = run_small(scenario)
    assert found["kills"] == 3
