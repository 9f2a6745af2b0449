"""The report: what it says, that it says it safely, and that everyone can read it."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from app.cli.options import read_recipe, read_view
from models.backbone import Backbone
from models.dataset import read_folder
from models.errors import ArtifactMismatch
from models.evaluation.proportions import proportion
from models.features import MemoryFeatureStore
from models.imaging import View
from models.language import ENGLISH
from models.recipe import Recipe
from models.report import ReportData, geometry, render_report, results, words
from models.report.reproduction import command, phases
from models.tuning import Tuning
from tests.report_samples import mistake, sample_report, with_confusion

THREE = ("good", "表面のきず 🔥", "stain")
HOSTILE = "<script>alert('x')</script>\"&'"
VOID = {"meta", "link", "br", "img", "wbr"}


class Page(HTMLParser):
    """Collects the elements of a page and checks that every one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(data: ReportData) -> Page:
    return Page(render_report(data))


def test_of_a_real_tuning_says_what_was_measured_and_how_to_repeat_it(
    backbone: Backbone,
    recipe: Recipe,
    store: MemoryFeatureStore,
    photographs: Callable[..., Path],
) -> None:
    dataset = read_folder(photographs())
    artifact = Tuning(
        dataset.classes, dataset.images, backbone, recipe, seed=3, view=View(), store=store
    ).run()
    text = page(ReportData.from_artifact(artifact)).text
    tuned = artifact.header.metrics.tuned
    assert "measured by cross-validation: each of the 12 photographs" in text
    assert f"95 % interval {ENGLISH.interval(tuned.macro)}".replace("\xa0", " ") in text
    for spec in dataset.classes:
        assert spec.name in text
    for value in (artifact.digest, backbone.digest, artifact.header.snapshot, "--seed 3"):
        assert value in text


def test_says_that_the_test_came_after_the_tuning_and_counts_its_mistakes() -> None:
    data = with_confusion(sample_report(THREE), [[9, 1, 0], [0, 10, 0], [2, 0, 8]])
    text = page(data).text
    assert "30 photographs sent to the tuned model afterwards" in text
    assert (
        "3 of 30 photographs decided wrong. Most often: 2 of 10 stain taken for good;"
        f" 1 of 10 good taken for {THREE[1]}."
    ) in text
    assert "Zero-shot" not in text


def test_refuses_a_test_of_other_classes() -> None:
    with pytest.raises(ArtifactMismatch, match=r"of 2 classes; the model has 3"):
        with_confusion(sample_report(THREE), [[1, 0], [0, 1]])


def test_runs_nothing_and_loads_nothing_whatever_things_are_called() -> None:
    data = sample_report(
        (HOSTILE, "good"),
        mistakes=[mistake(HOSTILE, "good", name=HOSTILE)],
        title=HOSTILE,
        command=HOSTILE,
        seconds={HOSTILE: 1.0},
    )
    html = render_report(data)
    shown = Page(html)
    assert "<script" not in html
    assert HOSTILE in shown.text
    assert shown.all("script") == []
    for _, attributes in shown.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"https?:|@import|url\(", html)
    policy = shown.all("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"] is not None
    assert policy["content"].startswith("default-src 'none'")


@pytest.mark.parametrize("n_classes", [2, 3, 7, 12, 20, 41])
def test_is_well_formed_and_accessible(n_classes: int) -> None:
    names = [f"class {index}" for index in range(n_classes)]
    shown = page(sample_report(names, mistakes=[mistake("class 0", "class 1")]))
    ids = Counter(a["id"] for _, a in shown.elements if "id" in a)
    assert set(ids.values()) == {1}
    for _, attributes in shown.elements:
        assert attributes.get("aria-labelledby", next(iter(ids))) in ids
    assert all(a.get("scope") in {"row", "col"} for a in shown.all("th"))
    assert all(a.get("alt") for a in shown.all("img"))
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in shown.all("svg"))
    assert len(shown.all("h1")) == 1
    assert shown.all("html")[0]["lang"] == "en"


def test_is_the_same_each_time() -> None:
    assert render_report(sample_report(THREE)) == render_report(sample_report(THREE))


def test_two_classes_show_the_raw_cosine_against_minus_one() -> None:
    data = sample_report(("good", "scratch"))
    shown = page(data)
    assert "NC2 is identically 0 for two classes" in shown.text
    assert not any(a.get("class") == "map" for a in shown.all("svg"))
    assert [mark.value for mark in geometry.marks(data)][2] == -1
    assert geometry.marks(data)[2].position == 0
    assert {m.name for m in geometry.text_metrics(data)} == {
        "Mean text cosine",
        "LC, Gram form",
        "MI, point form",
        "NC4",
    }
    chart = geometry.collapse_chart(data)
    assert chart is not None
    # LC is 0.5 at the first epoch and 0.05 at the last: cosines of sqrt(LC) - 1.
    assert "from \N{MINUS SIGN}0.29 to \N{MINUS SIGN}0.78" in chart.summary


def test_three_classes_show_the_whole_geometry() -> None:
    shown = page(sample_report(THREE))
    assert sum(a.get("class") == "map" for a in shown.all("svg")) == 4
    assert "Ideal: every pair \N{MINUS SIGN}0.50" in shown.text
    assert "LC works on raw cosines, while NC2 and NC3 centre the features first" in shown.text
    assert shown.text.count("NC1") == 1


def test_leaves_out_pictures_that_nobody_could_read() -> None:
    html = render_report(sample_report([f"class {index}" for index in range(41)]))
    assert 'class="map"' not in html
    assert 'class="matrix' not in html
    assert "With 41 classes the maps are left out." in html
    assert len(html) < 300_000


def test_says_that_no_ideal_frame_exists_in_too_few_dimensions() -> None:
    data = sample_report(THREE)
    flat = np.eye(3, 1) + 1
    short = replace(data, text_features=flat, zero_shot_features=flat, class_means=flat)
    assert "In 1 dimensions 3 classes have no such frame" in page(short).text


def test_shows_a_tuning_that_diverged() -> None:
    data = sample_report(THREE)
    metrics = data.header.metrics
    after = metrics.collapse_after.model_copy(update={"text_nc2": math.nan})
    history = [{**metrics.history[0], "loss": math.nan, "ce": math.nan}]
    header = data.header.model_copy(
        update={"metrics": metrics.model_copy(update={"history": history, "collapse_after": after})}
    )
    nothing = np.full_like(data.text_features, math.nan)
    broken = replace(data, header=header, text_features=nothing)
    assert words.NOTHING in page(broken).text
    nc2 = geometry.text_metrics(broken)[0]
    assert (nc2.name, nc2.after, nc2.verdict) == ("NC2, text", words.NOTHING, "")


def test_no_epochs_are_said_to_be_missing() -> None:
    data = sample_report(THREE)
    metrics = data.header.metrics.model_copy(update={"history": []})
    header = data.header.model_copy(update={"metrics": metrics})
    assert "No epochs were recorded." in page(replace(data, header=header)).text


def test_shows_mistakes_the_most_confident_first() -> None:
    data = with_confusion(sample_report(("good", "scratch")), [[5, 3], [0, 5]])
    shots = [
        mistake("good", "scratch", name="unsure.png", probability=0.51),
        mistake("good", "scratch", name="sure.png", probability=0.99),
    ]
    shown = page(replace(data, mistakes=shots))
    assert "2 of the 3, the most confident mistake first." in shown.text
    alts = [attributes["alt"] for attributes in shown.all("img")]
    assert alts == [
        "Photograph sure.png: labelled good, predicted scratch",
        "Photograph unsure.png: labelled good, predicted scratch",
    ]


def test_counts_what_a_line_pays_for() -> None:
    data = with_confusion(
        sample_report(("good", "scratch", "stain")), [[8, 2, 0], [1, 9, 0], [3, 1, 6]]
    )
    through, stopped = results.outcomes(data.header.classes, data.tuned)
    assert (through.kind, through.count, through.total) == ("miss", 4, 20)
    assert (stopped.kind, stopped.count, stopped.total) == ("alarm", 2, 10)
    assert through.share == proportion(4, 20)
    only_ng = sample_report(("a", "b"))
    assert results.outcomes(only_ng.header.classes, only_ng.tuned) == []


def test_the_matrix_holds_counts_and_row_shares() -> None:
    data = with_confusion(sample_report(("good", "scratch")), [[3, 1], [0, 5]])
    cells = results.matrix(data.tuned)
    assert [[cell.count for cell in row] for row in cells] == [[3, 1], [0, 5]]
    assert [[cell.share for cell in row] for row in cells] == [[0.75, 0.25], [0, 1]]
    assert [[cell.style for cell in row] for row in cells] == [["s15", "w5"], ["w0", "s20"]]


def test_warns_of_overlapping_intervals_and_of_few_photographs() -> None:
    data = with_confusion(sample_report(("good", "scratch")), [[3, 1], [1, 30]])
    same = replace(data, test_zero_shot=data.test)
    assert results.cautions(same) == [
        "Tuning did not raise the accuracy on these photographs.",
        "1\N{NO-BREAK SPACE}class was measured on fewer than 20 photographs (the fewest: 4);"
        " read the intervals, not the figures alone.",
    ]
    worse = with_confusion(data, [[2, 2], [2, 29]]).test
    assert "overlap" in results.cautions(replace(data, test_zero_shot=worse))[0]


def test_the_command_gives_the_recipe_back() -> None:
    recipe = Recipe(
        steps=40, ctx_init=None, class_specific=False, lc_form="anchored", lr=0.25, lc_weight=2.0
    )
    header = sample_report(("it's ok", "a b"), recipe=recipe).header
    parts = shlex.split(command(header, ["--shots", "6"]))
    settings = [value for flag, value in pairwise(parts) if flag == "--set"]
    assert read_recipe(settings) == recipe
    assert parts[:4] == ["shotline", "tune", "FOLDER", "--out"]
    assert parts[parts.index("--shots") + 1] == "6"
    assert "--shots" not in command(header)


def test_the_page_promises_the_digest_of_a_command_that_it_was_given() -> None:
    promise = "give the same model digest on the same kind of machine"
    given = render_report(sample_report(("a", "b"), command="make demo"))
    assert "<code>make demo</code>" in given
    assert promise in given

    derived = render_report(sample_report(("a", "b")))
    assert "<code>shotline tune FOLDER --out FILE --seed 7 --backbone" in derived
    assert promise not in derived
    assert "x86_64 AVX2, fp32, PyTorch 2.14.1" in derived


def test_the_command_names_roles_prompts_and_view() -> None:
    data = sample_report(("合格", "scratch"))
    first = data.header.classes[0].model_copy(update={"prompt_name": "clean part", "role": "ok"})
    header = data.header.model_copy(
        update={
            "classes": [first, data.header.classes[1]],
            "view": View(roi=(1 / 3, 0, 0.9, 1), resize="crop"),
        }
    )
    parts = shlex.split(command(header))
    assert parts[-8:] == [
        *("--ok", "合格", "--prompt", "合格=clean part"),
        *("--roi", "0.3333333333333333,0.0,0.9,1.0", "--resize", "crop"),
    ]
    assert read_view(parts[-3], "crop") == header.view


def test_phases_stand_in_the_order_in_which_they_happen() -> None:
    data = sample_report(THREE, seconds={"predict": 8.0, "warm_up": 1.0, "upload": 2.0})
    assert [phase.name for phase in phases(data)] == [
        "Uploading the photographs",
        "Encoding the photographs",
        "Tuning the prompts",
        "Measuring the result",
        "Deciding the test photographs",
        "Warm up",
    ]
    assert max(phase.percent for phase in phases(data)) == 100
