"""The sections of a report: costs, trust, mistakes with heat maps, photographs, search, JSON."""

import io
import json
import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from models.artifact import Artifact
from models.backbone import Backbone
from models.dataset import LabelledImage
from models.errors import ArtifactMismatch, DamagedArtifact
from models.evaluation.proportions import proportion
from models.evaluation.results import WrongImage
from models.language import ENGLISH, JAPANESE, LANGUAGES
from models.report import ReportData, evidence, geometry, images, render_report, searched, trust
from models.report.costs import costs
from models.report.data import MAX_PICTURE_BYTES, small_jpeg
from models.report.document import report_document
from models.report.kept import KeptReport, is_page
from models.report.palette import heat_colours
from models.report.pictures import draw_mistakes, overlay
from models.trust.policy import DecisionPolicy
from tests.report_samples import (
    heated,
    mistake,
    sample_extras,
    sample_report,
    with_confusion,
    with_extras,
)

NAMES = ("good", "scratch", "stain")
PRICED = DecisionPolicy.read(
    {"costs": {"stain": {"miss": 50.0}, "good": {"false_alarm": 2.0}}, "review": 0.5}
)


def full() -> ReportData:
    extras = sample_extras() | {
        "wrong": [
            WrongImage(
                sha256="d" * 64, name="a.png", label="good", predicted="stain", probability=0.9
            )
        ]
    }
    return with_extras(sample_report(NAMES, basis="out-of-fold"), **extras)


def test_rendering_needs_no_torch() -> None:
    code = (
        "import sys, models.report, models.report.document, models.report.kept;"
        "sys.exit('torch' in sys.modules or 'scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_costs_by_hand() -> None:
    data = with_confusion(sample_report(NAMES), [[8, 2, 0], [1, 9, 0], [3, 1, 6]])
    missed, stopped = costs(data)
    assert (missed.kind, missed.count, missed.total, missed.per_thousand) == ("miss", 4, 20, None)
    assert (stopped.kind, stopped.share) == ("alarm", proportion(2, 10))
    priced = replace(data, policy=PRICED)
    by_class = {row.of: row for row in costs(priced) if row.each is not None}
    stain, good = by_class["parts of stain"], by_class["parts of good"]
    assert (stain.kind, stain.count, good.kind, good.count) == ("miss", 3, "alarm", 2)
    assert stain.per_thousand is not None
    assert stain.per_thousand.value == pytest.approx(15_000)  # 0.3 * 1,000 * 50
    assert stain.per_thousand.low == pytest.approx(50_000 * proportion(3, 10).low)
    assert good.per_thousand is not None
    assert good.per_thousand.value == pytest.approx(400)  # 0.2 * 1,000 * 2
    html = render_report(priced)
    assert "15,000 (" in html
    assert "<strong>200 (" in html


def test_what_is_left_undecided_is_a_cost_too() -> None:
    data = replace(with_extras(sample_report(NAMES), **sample_extras()), policy=PRICED)
    undecided = costs(data)[-1]
    assert (undecided.kind, undecided.count, undecided.total) == ("undecided", 9, 50)
    assert undecided.per_thousand is not None
    assert undecided.per_thousand.value == pytest.approx(90)  # 9 of 50, 1,000 parts, 0.5 each
    tested = with_confusion(data, [[5, 0, 0], [0, 5, 0], [0, 0, 5]])
    assert "undecided" not in {row.kind for row in costs(tested)}


def test_the_reliability_plot_leaves_out_thin_bins() -> None:
    found = sample_extras()["trust"]
    chart = trust.reliability(found)
    assert chart is not None
    ideal, before, _ = chart.lines
    assert ideal.style == "perfect"
    assert len(before.points.split()) == 7  # bins of 3 and more of 0, 1, 2, ... 9
    assert [tick for _, tick in chart.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert chart.axis == "probability"


def test_decisions_are_drawn_over_what_is_left_undecided_with_alpha_at_each_point() -> None:
    data, found = sample_report(NAMES), sample_extras()["trust"]
    chart = trust.deciding(data, found)
    assert chart is not None
    always, right = chart.lines
    assert (always.name, right.name) == ("always ng", "right")
    # The first point is of two decided photographs, which say nothing.
    assert [mark for _, _, mark in right.marks] == ["0.05", "0.1", "0.2", "0.3", "0.5"]
    assert len(right.points.split()) == 5
    highest = right.marks[0]
    assert highest[1] > float(right.points.split()[0].split(",")[1])  # below, where the chart ends
    assert chart.axis == "undecided"
    assert ENGLISH.say("trust.curve") in render_report(full())
    before = with_extras(full(), trust=found.model_copy(update={"curve": []}))
    for code in ("en", "ja"):
        page = render_report(before, code)
        assert page.count(LANGUAGES[code].say("trust.reasons")) == 2  # the table and its label
        assert LANGUAGES[code].say("trust.curve") not in page


def test_what_speaks_against_a_version_is_among_the_cautions() -> None:
    doubtful = sample_extras()["trust"].model_copy(
        update={"decided": proportion(3, 50), "decided_accuracy": proportion(2, 3)}
    )
    data = with_extras(full(), trust=doubtful)
    for code, says in (("en", "It would decide 6 of 100"), ("ja", "自動で判定するのは6枚ほど")):
        cautions = report_document(data, code).cautions
        assert sum(says in one for one in cautions) == 1
        page = render_report(data, code)
        assert says in page
        assert "<code>shotline enough</code>" in page
    tested = with_confusion(data, [[8, 2, 0], [1, 9, 0], [3, 1, 6]])
    assert "shotline enough" not in render_report(tested)


def test_trust_in_figures() -> None:
    facts = {fact.name: fact for fact in trust.facts(sample_extras()["trust"])}
    assert facts["Expected calibration error, before and after"].value == "12.0 → 3.4 points"
    assert "by construction" in facts["Sets that hold the true class"].note
    assert facts["Classes in a set, on average"].note.endswith("1, 40, 9")
    assert trust.reasons(sample_extras()["trust"])[0] == (
        "Every class that it could be of leads to this decision",
        41,
    )


@pytest.mark.parametrize(
    ("better", "total", "verdict"),
    [(8, 8, "more"), (7, 8, "more"), (6, 8, "same"), (0, 8, "same"), (4, 4, "few"), (5, 5, "more")],
)
def test_heat_maps_are_believed_by_a_sign_test(better: int, total: int, verdict: str) -> None:
    mistakes = [
        heated(mistake("good", "stain"), hottest_first=0.4 if place < better else 0.8)
        for place in range(total)
    ]
    check = evidence.heat_check(mistakes)
    assert check is not None
    assert (check.better, check.total, check.verdict) == (better, total, verdict)
    assert check.random == pytest.approx(0.6)
    assert evidence.heat_check([mistake("good", "stain")]) is None


def test_the_page_shows_heat_maps_and_what_they_are_worth() -> None:
    shots = [heated(mistake("good", "stain", name=f"{n}.png")) for n in range(6)]
    html = render_report(with_extras(sample_report(NAMES, mistakes=shots), wrong=None))
    assert html.count("<img ") == 12
    assert "The maps tell more than chance." in html
    assert "Deletion 0.40, random 0.60" in html


def test_mistakes_without_pictures_are_a_table() -> None:
    html = render_report(full())
    assert "<img " not in html
    assert "the report was made where the photographs were not" in html
    assert "a.png" in html


def test_pictures_are_drawn_of_what_the_tuning_was_wrong_about(
    artifact: Artifact, backbone: Backbone, images: list[LabelledImage]
) -> None:
    wrong = [
        WrongImage(
            sha256=image.sha256, name=image.name, label="good", predicted="stain", probability=0.7
        )
        for image in (*images[:2], images[-1])
    ]
    header = artifact.header
    metrics = header.metrics.model_copy(update={"wrong": wrong})
    known = Artifact(header.model_copy(update={"metrics": metrics}), artifact.tensors)
    drawn = draw_mistakes(known, images[:6], backbone)
    assert [one.sha256 for one in drawn] == [one.sha256 for one in wrong]
    for one in drawn[:2]:
        assert one.heat is not None
        assert one.heat.way == "attention"
        assert len(one.heat.random) == 4
        assert all(0 <= area <= 1 for area in (one.heat.hottest_first, *one.heat.random))
        for picture in (one.thumbnail, one.heat.picture):
            assert picture is not None
            assert PIL.Image.open(io.BytesIO(picture)).size == (32, 32)
    assert drawn[2].thumbnail is None
    assert draw_mistakes(known, [], backbone)[0].thumbnail is None


def test_pictures_are_drawn_on_the_tunings_own_backbone_alone(
    artifact: Artifact, other_backbone: Backbone, images: list[LabelledImage]
) -> None:
    wrong = WrongImage(
        sha256=images[0].sha256, name="a", label="good", predicted="stain", probability=0.7
    )
    metrics = artifact.header.metrics.model_copy(update={"wrong": [wrong]})
    known = Artifact(artifact.header.model_copy(update={"metrics": metrics}), artifact.tensors)
    with pytest.raises(ArtifactMismatch, match="tuned for the backbone"):
        draw_mistakes(known, images, other_backbone)


def test_pictures_are_small_whatever_they_show() -> None:
    noise = random.Random(0).randbytes(3 * 900 * 900)
    image = PIL.Image.frombytes("RGB", (900, 900), noise)
    assert len(small_jpeg(image)) <= MAX_PICTURE_BYTES
    assert PIL.Image.open(io.BytesIO(small_jpeg(image.resize((20, 10))))).size == (20, 10)


def test_heat_is_told_by_brightness_alone() -> None:
    """Whoever sees no colour sees light: each step is brighter than the last."""
    ramp = heat_colours(np.linspace(0, 1, 50)[None])[0].astype(float)
    light = ramp @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(light) > 0).all()
    image = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    heat = torch.zeros(2, 2)
    heat[0, 1] = 1
    shown = np.asarray(overlay(image, heat)).astype(float).sum(axis=2)
    assert shown[0, 7] > shown[7, 0]


def test_what_is_kept_comes_back_and_anything_else_is_refused() -> None:
    kept = KeptReport(title="ベアリング", mistakes=[heated(mistake("good", "stain"))])
    assert KeptReport.from_bytes(kept.to_bytes()) == kept
    assert not is_page(kept.to_bytes())
    assert is_page(b"\n<!doctype html>")
    for damaged in (b"", b"{}x", b'{"form": 2}', b'{"form": 1, "mistakes": [{"name": 3}]}'):
        with pytest.raises(DamagedArtifact):
            KeptReport.from_bytes(damaged)


def test_findings_speak_the_pages_language() -> None:
    found = sample_extras()["findings"]
    english, japanese = images.findings(found), images.findings(found, JAPANESE)
    assert english[0].sentence == (
        "'stain/0007.png' and 'good/0001.png' are the same file, under the labels 'good', 'stain'."
        " Decide which label is right, and remove or relabel the others."
    )
    assert japanese[0].sentence == (
        "「stain/0007.png」と「good/0001.png」は同じファイルですが、ラベルが「good」、「stain」と異なり"
        "ます。どのラベルが正しいかを決め、ほかは削除するかラベルを直してください。"
    )
    before = [one.model_copy(update={"said": []}) for one in found]
    assert images.findings(before)[0].sentence == english[0].sentence
    assert images.findings(before, JAPANESE)[1].sentence == JAPANESE.say("advice.blur")
    assert english[0].examples == ["stain/0007.png", "good/0001.png"]
    assert "found something serious" in render_report(full())
    nothing = with_extras(sample_report(NAMES), findings=[])
    assert ENGLISH.say("findings.none") in render_report(nothing)


def test_the_learning_curve() -> None:
    curve = sample_extras()["learning_curve"]
    rows = images.curve_rows(curve)
    assert rows[0].now == images.Told("87.5", "80.0 to 92.0")
    assert rows[0].gain == images.Told("+2.1", "+0.4 to +5.0")
    assert rows[2].then == images.Told("too few to tell")
    sentence = images.curve_sentence(curve)
    assert sentence.startswith("Photograph 表面のきず 🔥 next: 10 more would raise")
    assert "about 2.1 points (0.4 to 5.0)" in sentence
    flat = curve.model_copy(update={"next_class": 2})
    assert images.curve_sentence(flat) == ENGLISH.say("curve.enough", more=10)
    chart = images.curve_chart(curve)
    assert chart is not None
    assert [line.name for line in chart.lines] == ["", "1", "", "2"]
    # Two classes of one curve: 1 - 0.5 * 26 ** -0.5 after ten more.
    assert chart.lines[1].last == "0.90"
    only = curve.model_copy(update={"classes": curve.classes[2:], "next_class": 0})
    assert images.curve_chart(only) is None


def test_the_search() -> None:
    search = sample_extras()["search"]
    assert searched.sentence(search).startswith("Recipe 3 was taken: 5.0 points better")
    kept = search.choice.model_copy(update={"number": 0, "gain": 0.01})
    assert "default recipe was kept" in searched.sentence(
        search.model_copy(update={"choice": kept})
    )
    assert searched.sentence(search.model_copy(update={"choice": None})) == ""
    chart = searched.chart(search)
    assert chart is not None
    assert [line.last for line in chart.lines] == ["85.00", "85.00"]
    assert searched.chart(search.model_copy(update={"trials": search.trials[:1]})) is None
    assert searched.importance(search) == [
        ("lr", "75.0\N{NO-BREAK SPACE}%", 100.0),
        ("n_ctx", "25.0\N{NO-BREAK SPACE}%", 33.3),
    ]


@pytest.mark.parametrize(
    ("change", "gain", "said"),
    [
        (-0.2, 0.1, "as neural collapse would have it"),
        (-0.2, -0.1, "the geometry did not pay"),
        (0.2, 0.1, "the gain came from elsewhere"),
        (0.2, 0.0, "Neither closer"),
    ],
)
def test_what_the_geometry_means(change: float, gain: float, said: str) -> None:
    data = sample_report(NAMES)
    metrics = data.header.metrics
    before = metrics.collapse_before.model_copy(update={"text_nc2": 0.5, "text_cosine": 0.6})
    tuned, zero = metrics.tuned, metrics.zero_shot
    macro = tuned.macro.model_copy(update={"value": zero.macro.value + gain})
    data = with_extras(
        data,
        collapse_before=before,
        collapse_after=before.model_copy(
            update={
                "text_nc2": before.text_nc2 + change,
                "text_cosine": before.text_cosine + change,
            }
        ),
        tuned=tuned.model_copy(update={"macro": macro}),
    )
    sentences = geometry.meaning(data)
    assert ("apart" in sentences[0]) == (change < 0)
    assert said in sentences[-1]
    assert all("NaN" not in one for one in sentences)


def test_json_says_all_that_the_page_says() -> None:
    data = full()
    for code in ("en", "ja"):
        document = json.loads(report_document(data, code).model_dump_json())
        html = render_report(data, code).replace("&#39;", "'")
        assert document["language"] == code
        for sentence in (*document["cautions"], *document["geometry"]["sentences"]):
            assert sentence in html
        assert document["learning_curve_sentence"] in html
        assert document["search_sentence"] in html
        assert document["reproduction"]["command"].split()[:2] == ["shotline", "tune"]
        assert document["mistakes"][0]["sha256"] == "d" * 64
        assert document["costs"][-1]["kind"] == "undecided"
        assert document["linear_probe"]["n_images"] == document["tuned"]["n_images"]
        assert {row["key"] for row in document["geometry"]["measures"]} >= {"text_nc2", "nc1", "mi"}
        assert document["trust"]["alpha"] == 0.1
        assert len(document["findings_advice"]) == 2


def test_json_holds_no_picture_but_its_check() -> None:
    shots = [heated(mistake("good", "stain"))]
    document = report_document(replace(full(), mistakes=shots))
    assert document.mistakes[0].deletion == 0.4
    assert document.heat is not None
    assert document.heat.sentence.startswith("With so few photographs")
    assert "thumbnail" not in document.model_dump_json()


def test_json_of_a_tuning_that_diverged_holds_nothing_that_json_cannot() -> None:
    data = full()
    after = data.header.metrics.collapse_after.model_copy(update={"text_nc2": math.nan})
    broken = with_extras(data, collapse_after=after, history=[{"epoch": 1.0, "loss": math.inf}])
    document = report_document(broken)
    assert document.geometry.history == [{"epoch": 1.0, "loss": None}]
    nc2 = next(row for row in document.geometry.measures if row.key == "text_nc2")
    assert nc2.after is None


def test_a_probe_that_does_better_is_said_to() -> None:
    data = sample_report(NAMES)
    metrics = data.header.metrics
    worse = metrics.tuned.model_copy(update={"macro": proportion(10, 20)})
    better = metrics.tuned.model_copy(update={"macro": proportion(19, 20)})
    html = render_report(with_extras(data, tuned=worse, linear_probe=better))
    assert "A linear probe was more accurate on these photographs (95.0\N{NO-BREAK SPACE}%" in html
    assert "Linear probe" not in render_report(with_extras(data, linear_probe=None))
