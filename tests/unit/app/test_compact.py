"""The compact answer for a PLC."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.tables import Decision
from app.predictions.schemas import compact


@pytest.mark.parametrize(
    ("decision", "line"),
    [("ok", "1;0.9400;7;傷"), ("ng", "2;0.9400;7;傷"), ("undecidable", "3;0.9400;7;傷")],
)
def test_codes(decision: Decision, line: str) -> None:
    assert compact(decision, 0.94, 7, "傷") == line


def test_cut_within_a_character_leaves_the_whole_ones() -> None:
    # "1;1.0000;7;" has 11 bytes: 243 are left, 60 emoji of 4 bytes and 3 bytes to spare.
    line = compact("ok", 1.0, 7, "🔍" * 100)
    assert line == "1;1.0000;7;" + "🔍" * 60
    assert len(line.encode()) == 251


def test_exactly_254_bytes_are_kept() -> None:
    assert len(compact("ok", 0.5, 1, "a" * 243).encode()) == 254
    assert compact("ok", 0.5, 1, "a" * 244) == compact("ok", 0.5, 1, "a" * 243)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(1, 10**6))
def test_any_label_fits(label: str, version: int) -> None:
    line = compact("ng", 0.12345, version, label)
    assert len(line.encode()) <= 254
    head = f"2;0.1235;{version};" if f"{0.12345:.4f}" == "0.1235" else f"2;0.1234;{version};"
    assert line.startswith(head)
    assert label.startswith(line.removeprefix(head))
