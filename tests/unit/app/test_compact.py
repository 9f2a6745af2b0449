"""The compact answer for a PLC."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.tables import Decision
from app.predictions.schemas import compact


@pytest.mark.parametrize(
    ("decision", "line"),
    [
        ("ok", "1;0.9400;7;certain;傷"),
        ("ng", "2;0.9400;7;certain;傷"),
        ("undecidable", "3;0.9400;7;certain;傷"),
    ],
)
def test_codes(decision: Decision, line: str) -> None:
    assert compact(decision, 0.94, 7, "certain", "傷") == line


def test_cut_within_a_character_leaves_the_whole_ones() -> None:
    # "1;1.0000;7;certain;" has 19 bytes: 235 are left, 58 emoji of 4 bytes and 3 bytes to spare.
    line = compact("ok", 1.0, 7, "certain", "🔍" * 100)
    assert line == "1;1.0000;7;certain;" + "🔍" * 58
    assert len(line.encode()) == 251


def test_exactly_254_bytes_are_kept() -> None:
    longest = compact("ok", 0.5, 1, None, "a" * 242)
    assert len(longest.encode()) == 254
    assert compact("ok", 0.5, 1, None, "a" * 243) == longest


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(1, 10**6))
def test_any_label_fits(label: str, version: int) -> None:
    line = compact("ng", 0.12345, version, "unlike_training_images", label)
    assert len(line.encode()) <= 254
    head = f"2;{0.12345:.4f};{version};unlike_training_images;"
    assert line.startswith(head)
    assert label.startswith(line.removeprefix(head))
