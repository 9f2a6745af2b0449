"""The parts of the report that draw and write: colours, numbers, geometry."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from models.evaluation.results import Proportion
from models.language import ENGLISH
from models.report import palette, words
from models.report.charts import Series, heat_map, line_chart, spread, ticks

# The characters of good typography, as the keyboard has them.
_PLAIN = str.maketrans({"\N{NO-BREAK SPACE}": " ", "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-"})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_step_of_the_ramps_can_be_read(theme: palette.Theme) -> None:
    rules = re.findall(r"--cell:(#\w{6});--on-cell:(#\w{6})", palette.ramp_css(theme))
    assert len(rules) == 2 * (palette.SHARE_STEPS + 1) + palette.COSINE_STEPS + 1
    assert all(palette.contrast(cell, text) >= 4.5 for cell, text in rules)


@pytest.mark.parametrize("name", ["style.css", "dark.css"])
def test_text_stands_out_from_its_ground(name: str) -> None:
    folder = Path(palette.__file__).parent / "templates"
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", (folder / name).read_text("utf-8")))
    for text in ("ink", "soft", "tuned", "wrong", "second", "third"):
        for ground in ("paper", "ground", "note"):
            assert palette.contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_contrast_is_that_of_the_guidelines() -> None:
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert palette.mix("#000000", "#ff8000", 0.5) == "#804000"
    assert palette.readable_on("#ffff00") == "#000000"


def test_colours_of_shares_and_cosines() -> None:
    assert palette.share_class(0, right=True) == "s0"
    assert palette.share_class(0.001, right=False) == "w4"
    assert [palette.cosine_class(c) for c in (-1, 0, 1, 1.2, math.nan)] == [
        "c0",
        "c20",
        "c40",
        "c40",
        "c20",
    ]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (ENGLISH.percent(0.935), "93.5 %"),
        (ENGLISH.percent(1.0), "100 %"),
        (ENGLISH.percent(0.9999), "99.9 %"),
        (ENGLISH.percent(0.0001), "0.1 %"),
        (ENGLISH.percent(0), "0 %"),
        (ENGLISH.interval(Proportion(value=0.5, low=0.25, high=0.75)), "25.0-75.0 %"),
        (words.points(0.1251), "+12.5"),
        (words.points(-0.02), "-2.0"),
        (words.points(-0.0001), "+0.0"),
        (words.number(-0.5, 2), "-0.50"),
        (words.number(-0.0001, 2), "0.00"),
        (words.number(math.nan), words.NOTHING),
        (words.short(0.834), ".83"),
        (words.short(-0.166), "-.17"),
        (words.short(0.999), "1"),
        (words.short(-1), "-1"),
        (words.short(0.001), "0"),
        (ENGLISH.seconds(0.01), "< 0.1 s"),
        (ENGLISH.seconds(9.96), "10 s"),
        (ENGLISH.seconds(59.7), "1 min 00 s"),
        (ENGLISH.seconds(185), "3 min 05 s"),
        (ENGLISH.counted(1, "class"), "1 class"),
        (ENGLISH.counted(3, "class"), "3 classes"),
        (ENGLISH.counted(1200, "photograph"), "1,200 photographs"),
    ],
)
def test_numbers_are_written_as_people_read_them(shown: str, expected: str) -> None:
    assert shown.translate(_PLAIN) == expected


def test_names_may_be_broken_where_file_names_have_joints() -> None:
    assert words.pieces("cam_3/a b.png") == ["cam_", "3/", "a b.png"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 4.1, [0, 1, 2, 3, 4, 5]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (2, 2, [1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_labels_are_spread_in_order_and_inside() -> None:
    assert spread([50, 51, 200], 15, 0, 200) == [50, 65, 200]
    assert spread([199, 200], 15, 0, 200) == [185, 200]
    assert spread([10, 5], 15, 0, 200) == [20, 5]


def test_a_line_chart_skips_what_is_not_finite() -> None:
    chart = line_chart([1, 2, 3], [Series("a", "ce", [1, math.nan, 2])], low=0)
    assert chart is not None
    assert len(chart.lines[0].points.split()) == 2
    assert chart.summary == "By epoch, 1 to 3: a from 1.00 to 2.00."
    assert line_chart([1], [Series("a", "ce", [math.nan])]) is None
    single = line_chart([1], [Series("a", "ce", [0.5])], low=0)
    assert single is not None
    assert [label for _, label in single.x_ticks] == ["1"]


def test_cells_of_a_large_map_carry_no_numbers() -> None:
    assert {cell.text for cell in heat_map("m", np.eye(15), "Text").cells} == {""}
    small = heat_map("m", np.eye(3), "Text")
    assert [cell.text for cell in small.cells] == ["1", "0", "0", "0", "1", "0", "0", "0", "1"]
    assert small.summary == "Text: every pair 0.00"
