"""What speaks against letting a version decide, and how its decisions would follow alpha."""

import json
from collections.abc import Callable

import pytest

from models.artifact import Artifact
from models.backbone import Backbone
from models.classes import ClassSpec, Role
from models.dataset import LabelledImage
from models.evaluation.proportions import proportion
from models.features import MemoryFeatureStore
from models.imaging import View
from models.language import ENGLISH, JAPANESE
from models.recipe import Recipe
from models.trust.curve import ALPHAS, MOST_IN_CURVE, curve
from models.trust.doubts import Measured, doubts, larger_role, measured, measured_in
from models.trust.metrics import TrustMetrics
from models.trust.policy import DecisionPolicy
from models.tuning import Tuning
from tests.report_samples import sample_curve, sample_extras, sample_report
from tests.unit.models.conftest import CLASSES, draw_images


def classes(*roles: Role) -> list[ClassSpec]:
    return [ClassSpec(name=f"c{n}", prompt_name=f"c{n}", role=r) for n, r in enumerate(roles)]


def told(roles: tuple[Role, ...], counts: list[int], decided: int, right: int | None) -> list[str]:
    """Return the doubts of a version of 100 images that decides so many, so many of them right."""
    share = None if right is None else proportion(right, decided)
    found = Measured(proportion(decided, 100), share, counts, "c0")
    return [ENGLISH.worded(one) for one in doubts(classes(*roles), found)]


def test_a_version_that_decides_little_and_hardly_knows_better_is_said_to() -> None:
    few, chance = told(("ok", "ng", "ng"), [20, 40, 40], 6, 4)
    assert few == (
        "It would decide 6 of 100 such images; the rest it leaves to people."
        " More images of 'c0', or fewer classes of the same role, help; see `shotline enough`."
    )
    assert chance.startswith("Of what it would decide, 67% is right (")
    assert "not surely more than the 80% of calling every image ng." in chance


def test_nothing_is_said_of_a_version_that_decides_well() -> None:
    assert told(("ok", "ng"), [50, 50], 80, 78) == []
    assert told(("ok", "ng"), [50, 50], 50, 48) == []  # half of them is not below one half


def test_just_below_one_half_is_not_said_to_be_half() -> None:
    share = proportion(1249, 2500)
    (few,) = doubts(classes("ok", "ng"), Measured(share, proportion(99, 99), [50, 50], "c1"))
    assert ENGLISH.worded(few) == (
        "It would decide 49 of 100 such images; the rest it leaves to people."
        " More images of 'c1' help; see `shotline enough`."
    )


@pytest.mark.parametrize(
    ("right", "doubted"),
    [(30, True), (34, True), (35, False), (60, False)],
)
def test_chance_is_told_by_the_lower_end_of_the_interval(right: int, *, doubted: bool) -> None:
    assert (proportion(right, 60).low <= 0.45) == doubted
    found = Measured(proportion(60, 100), proportion(right, 60), [45, 35, 20], "c0")
    said = doubts(classes("ok", "ng", "other"), found)
    assert bool(said) == doubted


def test_nothing_decided_and_nothing_to_decide() -> None:
    assert len(told(("ok", "ng"), [50, 50], 0, None)) == 1
    # Where all classes are ng, every decision is right: the costs say that there is no other role.
    assert told(("ng", "ng"), [50, 50], 6, 6) == []
    assert larger_role(classes("ng", "other"), [9, 5]) == ("ng", 0)
    assert larger_role(classes("ok", "ng", "ng"), [9, 5, 3]) == ("ok", 9)


def test_the_doubts_are_the_same_of_the_metrics_and_of_their_json() -> None:
    data = sample_report(("good", "scratch", "stain"))
    extras = sample_extras()
    metrics = data.header.metrics.model_copy(update={"trust": extras["trust"]})
    for following in (None, sample_curve()):
        whole = metrics.model_copy(update={"learning_curve": following})
        kept = json.loads(whole.model_dump_json())
        kept["tuned"]["ece"] = None  # as of a tuning that diverged
        found = measured(data.header.classes, whole.tuned, extras["trust"], following)
        assert measured_in(data.header.classes, kept) == found
        assert found.hardest == ("good" if following is None else "scratch")
    assert measured_in(data.header.classes, kept | {"trust": None}) is None


def test_a_doubt_is_told_in_japanese() -> None:
    found = Measured(proportion(6, 100), proportion(4, 6), [20, 80], "傷")
    few, chance = (JAPANESE.worded(one) for one in doubts(classes("ok", "ng"), found))
    assert few.startswith("このような画像100枚のうち、自動で判定するのは6枚ほどで")
    assert "「傷」" in few
    assert "すべてを不良とした場合の80%" in chance


def test_a_curve_by_hand() -> None:
    made = [["undecidable"] * 5 + ["ok"], ["ng"] * 6, ["undecidable", *["ok"] * 5]]
    points = curve(classes("ok", "ng"), [0, 1, 1], made)
    assert [point.alpha for point in points] == list(ALPHAS)
    assert [point.decided for point in points] == [
        proportion(1, 3), *[proportion(2, 3)] * 4, proportion(3, 3)
    ]  # fmt: skip
    right = [point.decided_accuracy for point in points]
    assert right == [proportion(1, 1), *[proportion(1, 2)] * 4, proportion(2, 3)]
    none = curve(classes("ok", "ng"), [0], [["undecidable"] * 6])
    assert {point.decided_accuracy for point in none} == {None}


@pytest.mark.parametrize("held_out", [0, 6])
def test_the_curve_is_what_a_tuning_measured_by_that_alpha_says(
    backbone: Backbone, recipe: Recipe, held_out: int
) -> None:
    images = [*draw_images(7, 7, 3), *draw_images(*[held_out] * 3, split="holdout", first=200)]
    store = MemoryFeatureStore()

    def trust(alpha: float) -> TrustMetrics:
        tuning = Tuning(CLASSES, images, backbone, recipe, seed=0, view=View(), store=store)
        tuning.measure_by(DecisionPolicy(alpha=alpha))
        found = tuning.run().header.metrics.trust
        assert found is not None
        return found

    first = trust(0.2)
    assert [point.alpha for point in first.curve] == list(ALPHAS)
    assert {point.n_images for point in first.curve} == {18 if held_out else 17}
    for other in (first, trust(0.5)):
        (point,) = (point for point in first.curve if point.alpha == other.alpha)
        assert (point.decided, point.decided_accuracy) == (other.decided, other.decided_accuracy)
        assert other.curve == first.curve
    assert len({point.decided.value for point in first.curve}) > 1


def test_a_curve_is_of_so_many_images_at_most(
    tune: Callable[..., Artifact], images: list[LabelledImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_IN_CURVE < 1000
    monkeypatch.setattr("models.trust.fitting.MOST_IN_CURVE", 5)
    trust = tune(images=images).header.metrics.trust
    assert trust is not None
    assert trust.n_images == 12
    assert {point.n_images for point in trust.curve} == {5}


def test_a_version_from_before_the_curve_is_read(artifact: Artifact) -> None:
    trust = artifact.header.metrics.trust
    assert trust is not None
    assert len(trust.curve) == len(ALPHAS)
    before = trust.model_dump(exclude={"curve"})
    assert TrustMetrics.model_validate(before).curve == []
