import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from models.bench.ablation import BASE, TERMS, ablation_methods
from models.bench.figures.all import draw
from models.bench.figures.bars import ablation, base_to_novel
from models.bench.figures.curves import over_shots, over_tau
from models.bench.figures.scatter import panels
from models.bench.figures.styles import focus, of_text
from models.bench.leaderboard import leaderboards
from models.bench.page import render_page
from models.bench.results import BenchResults, CellResult, Collapse
from models.bench.summary import (
    Point,
    Setting,
    Spread,
    over_datasets,
    spearman,
    summarise,
)
from models.bench.write import write_plots
from models.methods.catalogue import method
from models.report.palette import SERIES, contrast
from tests.unit.models.bench.conftest import result
from tests.unit.models.bench.test_results import META

FEW = Setting("parts", "few-shot", 4, 1.0)


def test_spread_by_hand() -> None:
    spread = Spread.of([0.5, None, 0.6, 0.7])
    assert spread is not None
    assert spread.mean == pytest.approx(0.6)
    assert spread.std == pytest.approx(0.1)
    # Student's t with 2 degrees of freedom: 4.3027
    assert spread.margin == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert spread.n == 3
    assert Spread.of([0.5]) == Spread(0.5, None, None, 1)
    assert Spread.of([None]) is None


def test_the_best_method_comes_first() -> None:
    rows = [result(m, a, seed=s) for m, a in (("a", 0.5), ("b", 0.7)) for s in (1, 2)]
    (ranked,) = summarise(rows).values()
    assert [one.method for one in ranked] == ["b", "a"]


def test_h_is_of_the_means_over_seeds() -> None:
    pairs = [(1.0, 0.2), (0.6, 0.6)]
    rows = [
        result(seed=seed, base=base, novel=novel, h=0.0, protocol="base-to-novel")
        for seed, (base, novel) in enumerate(pairs)
    ]
    ((one,),) = summarise(rows).values()
    assert one.h == pytest.approx(2 * 0.8 * 0.4 / 1.2)


def test_means_over_sets_are_taken_seed_by_seed() -> None:
    rows = [
        result(accuracy=accuracy, dataset=dataset, seed=seed)
        for dataset, values in (("a", (0.2, 0.4)), ("b", (0.6, 0.8)))
        for seed, accuracy in enumerate(values)
    ]
    rows.append(result("partial", dataset="a"))
    ((one,),) = over_datasets(rows).values()
    assert one.macro is not None
    assert one.macro.mean == pytest.approx(0.5)
    assert one.macro.std == pytest.approx(math.sqrt(0.02))
    assert one.method == "coop"


def test_across_sets_the_mean_is_over_the_targets() -> None:
    names = {"a": 1.0, "a->b": 0.4, "a->c": 0.6}
    rows = [result(accuracy=v, dataset=n, protocol="domain") for n, v in names.items()]
    ((one,),) = over_datasets(rows).values()
    assert one.macro is not None
    assert one.macro.mean == pytest.approx(0.5)
    (board,) = leaderboards(rows)
    assert board.columns[:4] == ["a", "a->b", "a->c", "mean of targets"]


def points(setting: Setting, *pairs: tuple[float, float]) -> list[Point]:
    return [Point(setting, "coop", x, y) for x, y in pairs]


def test_spearman_by_hand() -> None:
    # Ranks 1234 against 4231: 1 - 6 * (9 + 0 + 0 + 9) / (4 * 15)
    found = spearman(points(FEW, (0.1, 0.9), (0.2, 0.5), (0.3, 0.6), (0.9, 0.1)))
    assert found.rho == pytest.approx(1 - 6 * (9 + 0 + 0 + 9) / 60)
    assert found.n == 4


def test_spearman_compares_within_settings() -> None:
    """More images move the text away from the frame and raise accuracy: that is no relation."""
    many = FEW._replace(shots=16)
    falling = ((0.1, 0.6), (0.2, 0.5)), ((1.1, 0.9), (1.2, 0.8))
    both = points(FEW, *falling[0]) + points(many, *falling[1])
    assert spearman(both).rho == pytest.approx(-1)


@pytest.mark.parametrize(
    "pairs", [[(1.0, 2.0)] * 3, [(1.0, 0.1), (1.0, 0.2), (1.0, 0.3), (1.0, 0.4)]]
)
def test_spearman_of_nothing(pairs: list[tuple[float, float]]) -> None:
    assert spearman(points(FEW, *pairs)).rho is None
    assert spearman([]).rho is None


# ------------------------------------------------------------------ figures


@pytest.fixture
def rows() -> list[CellResult]:
    """Everything that there is a picture for."""
    found = []
    for seed in (1, 2, 3):
        for place, spec in enumerate([*ablation_methods(), "zero-shot", "<b>&\"'"]):
            for shots in (1, 16):
                for tau in (1.0, 0.06):
                    accuracy = 0.3 + 0.02 * place + 0.01 * shots + 0.003 * seed * (place % 3)
                    found.append(result(spec, accuracy, shots=shots, tau=tau, seed=seed))
            values = {"base": accuracy, "novel": accuracy - 0.1, "h": 0.5}
            found.append(result(spec, accuracy, seed=seed, protocol="base-to-novel", **values))
    return found


def test_plots_are_written_and_whole(tmp_path: Path, rows: list[CellResult]) -> None:
    paths = write_plots(BenchResults(meta=META, results=rows), tmp_path / "plots")
    assert sorted(path.name for path in paths) == [
        *("ablation.svg", "base_novel.svg", "bench.html", "etf_text_nc2.svg"),
        *("etf_text_to_image_nc3.svg", "shots.svg", "tau.svg"),
    ]
    for path in paths:
        if path.suffix == ".svg":
            picture = ET.fromstring(path.read_text())
            assert picture.findall("{http://www.w3.org/2000/svg}text")
            width, height = (float(picture.attrib[side]) for side in ("width", "height"))
            for text in picture.findall("{http://www.w3.org/2000/svg}text"):
                assert 0 <= float(text.attrib["x"]) <= width
                assert 0 <= float(text.attrib["y"]) <= height


def test_the_page_needs_nothing_beside_itself(tmp_path: Path, rows: list[CellResult]) -> None:
    write_plots(BenchResults(meta=META, results=rows), tmp_path)
    page = (tmp_path / "bench.html").read_text()
    assert not re.search(r"""(src|href)\s*=|url\(|@import|<script|<link|<img""", page)
    assert "default-src &#39;none&#39;" in page
    assert page.count("<svg") == 6
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "Spearman" in page
    for text in ("sha256:1", "sha256:2", "shotline bench"):
        assert text in page


def test_rho_is_given_without_zero_shot_too() -> None:
    rows = [
        result(f"m{i}", i / 10, nc=Collapse(text_nc2=i / 10, text_to_image_nc3=0.1))
        for i in range(1, 5)
    ]
    rows.append(result("zero-shot", 0.05, nc=Collapse(text_nc2=0.9, text_to_image_nc3=0.1)))
    page = render_page(BenchResults(meta=META, results=rows), [])
    # Ranks 12345 against 23451 of all, 1234 against 1234 of the tuned; none of one distance.
    assert '<td class="n">0.00</td><td class="n">1.00</td><td class="n">—</td>' in page


def test_a_page_of_one_result() -> None:
    content = BenchResults(meta=META, results=[result(nc=Collapse(), macro=None, top1=None)])
    assert draw(content.results) == []
    assert "<svg" not in render_page(content, [])


def test_notes_on_two_classes_and_on_too_many() -> None:
    few, many = (
        render_page(BenchResults(meta=META, results=[result(n_classes=n)]), []) for n in (2, 18)
    )
    assert "NC2 is identically 0" in few
    assert "Of more than 17 classes no simplex frame exists" in many


def test_nothing_is_drawn_of_one_value() -> None:
    rows = [result(seed=seed) for seed in (1, 2)]
    styles = focus(rows)
    assert over_shots(rows, styles) is None
    assert over_tau(rows, styles) is None
    assert base_to_novel(rows) is None
    assert ablation(rows) is None


def test_the_ablation_is_paired_by_seed() -> None:
    rows = [result(BASE, accuracy, seed=s) for s, accuracy in ((1, 0.2), (2, 0.6))]
    rows += [result(f"{BASE}+mi", accuracy, seed=s) for s, accuracy in ((1, 0.3), (2, 0.7), (3, 1))]
    figure = ablation(rows)
    assert figure is not None
    texts = [text.text for text in figure.texts]
    assert "+MI" in texts
    assert "+10.0" in texts  # and no seed without its pair
    assert "parts, 4 shots, tau 1 (CE 40.0 %)" in texts


def test_more_methods_than_colours_are_grey() -> None:
    rows = [result(f"m{i}", i / 20, shots=s) for i in range(9) for s in (1, 4)]
    rows += [result("zero-shot", 0.01, shots=s) for s in (1, 4)]
    styles = focus(rows)
    assert len(styles) == len(SERIES)
    assert "zero-shot" in styles
    assert len({(s.colour, s.shape, s.dash) for s in styles.values()}) == len(SERIES)
    figure = over_shots(rows, styles)
    assert figure is not None
    assert "grey: 4 more" in [text.text for text in figure.texts]


def test_methods_without_text_leave_their_colours_to_others() -> None:
    rows = [result(f"t{i}", i / 20) for i in range(6)]
    rows += [result(f"probe {i}", 0.9, nc=Collapse()) for i in range(4)]
    styles = focus(rows)
    assert sorted(styles) == ["probe 0", "probe 1", "probe 2", "probe 3", "t4", "t5"]
    found = of_text(rows, styles)
    assert sorted(found) == [f"t{i}" for i in range(6)]
    assert found["t5"] == styles["t5"]
    assert len({style.colour for style in found.values()}) == 6


def test_colours_can_be_read_on_white() -> None:
    assert min(contrast(colour, "#ffffff") for colour in SERIES) > 4.5


def test_panels_of_collapse() -> None:
    rows = [
        result(f"m{i}", i / 10, dataset=dataset, nc=Collapse(text_nc2=1 - i / 10))
        for i in range(5)
        for dataset in ("a", "b")
    ]
    rows.append(result("linear-probe", 0.9, dataset="a", nc=Collapse()))
    a, b, together = panels(rows, "text_nc2")
    assert (a.title, b.title, together.title) == ("a", "b", "All together")
    assert [panel.rho.rho for panel in (a, b, together)] == [pytest.approx(-1)] * 3
    assert (len(a.points), a.relative, together.relative) == (5, False, True)
    assert panels(rows, "text_to_image_nc3") == []


# ------------------------------------------------------------------ ablation


def test_every_method_of_the_ablation_is_known() -> None:
    specs = ablation_methods()
    assert specs[: len(TERMS)] == [
        *("coop", "coop+lc", "coop+mi", "coop+lc+mi", "coop+la", "coop+lc+mi+la")
    ]
    assert "coop+lc+lc_form=anchored" in specs
    for spec in specs:
        method(spec)
