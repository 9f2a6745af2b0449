"""`docs/security.md` names every limit with its default."""

from pathlib import Path

import pytest

from app.core.settings import LimitSettings

ROWS = [
    line
    for line in (Path(__file__).parents[2] / "docs/security.md").read_text().splitlines()
    if line.startswith("|")
]


@pytest.mark.parametrize("name", LimitSettings.model_fields)
def test_a_limit_is_on_the_page_with_its_default(name: str) -> None:
    default = LimitSettings.model_fields[name].default
    (row,) = [row for row in ROWS if f"`SHOTLINE_LIMIT_{name.upper()}`" in row]
    assert f"`{default}`" in row
