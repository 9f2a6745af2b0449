"""What a policy makes of findings: roles, costs, budgets, and what cannot be asked."""

from typing import Any

import numpy as np
import pytest

from models.classes import class_spec
from models.decision import Decision, conclude
from models.errors import BadInput
from models.trust.judge import Findings
from models.trust.policy import Budget, DecisionPolicy, check_budget, check_names
from models.trust.reasons import REASONS, SENTENCES, Reason

GOOD, SCRATCH, STAIN = class_spec("good"), class_spec("scratch"), class_spec("stain")
UNCLEAR = class_spec("unclear", role="other")
CLASSES = [GOOD, SCRATCH, STAIN]


def found(
    probabilities: list[float],
    p_values: list[float] | None,
    roles: tuple[float, float, float] = (1.0, 1.0, 1.0),
    groups: tuple[int, int, int] = (40, 40, 0),
    unlike: Reason | None = None,
) -> Findings:
    return Findings(
        np.array(probabilities),
        None if p_values is None else np.array(p_values),
        None if p_values is None else np.array(roles),
        groups,
        unlike,
    )


def shown(made: Decision) -> tuple[str, str, str]:
    return made.decision, made.reason, made.label


@pytest.mark.parametrize(
    ("p_values", "expected", "inside"),
    [
        ([0.5, 0.02, 0.02], ("ok", "certain", "good"), ["good"]),
        ([0.02, 0.5, 0.02], ("ng", "certain", "scratch"), ["scratch"]),
        ([0.02, 0.5, 0.5], ("ng", "certain", "scratch"), ["scratch", "stain"]),
        ([0.5, 0.5, 0.02], ("undecidable", "mixed_roles", "good"), ["good", "scratch"]),
        ([0.1, 0.1, 0.1], ("undecidable", "no_class_fits", "good"), []),
    ],
)
def test_the_roles_in_the_set_decide(
    p_values: list[float], expected: tuple[str, str, str], inside: list[str]
) -> None:
    made = conclude(CLASSES, found([0.5, 0.3, 0.2], p_values))
    assert shown(made) == expected
    assert made.prediction_set == inside


def test_a_class_of_role_other_decides_nothing() -> None:
    classes = [GOOD, SCRATCH, UNCLEAR]
    for p_values in ([0.5, 0.0, 0.5], [0.0, 0.0, 0.5]):
        made = conclude(classes, found([0.5, 0.2, 0.3], p_values))
        assert (made.decision, made.reason) == ("undecidable", "role_other")


def test_an_image_unlike_all_others_is_never_decided_on() -> None:
    made = conclude(CLASSES, found([0.98, 0.01, 0.01], [0.9, 0, 0], unlike="photograph_dark"))
    assert shown(made) == ("undecidable", "photograph_dark", "good")
    assert made.prediction_set == ["good"]
    costly = DecisionPolicy(review=100.0)
    made = conclude(
        CLASSES, found([0.98, 0.01, 0.01], [0.9, 0, 0], unlike="photograph_dark"), costly
    )
    assert made.decision == "undecidable"


def test_too_few_images_to_be_as_sure_as_asked() -> None:
    few = found([0.9, 0.1, 0.0], [0.9, 0.2, 0.2], groups=(3, 3, 0))
    assert conclude(CLASSES, few).reason == "too_few_images"
    assert conclude(CLASSES, few, DecisionPolicy(alpha=0.3)).decision == "ok"


def test_without_a_rule_the_most_probable_class_decides() -> None:
    assert shown(conclude(CLASSES, found([0.2, 0.5, 0.3], None))) == (
        "ng", "most_probable", "scratch"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("probabilities", "review", "expected"),
    [
        # Expected cost of ok: 50·p(scratch) + p(stain); of ng: 2·p(good).
        ([0.99, 0.0, 0.01], 0.5, ("ok", "least_cost", "good")),
        ([0.97, 0.03, 0.0], 0.5, ("undecidable", "review_costs_less", "good")),
        ([0.97, 0.03, 0.0], 1.8, ("ok", "least_cost", "good")),
        ([0.6, 0.4, 0.0], 1.8, ("ng", "least_cost", "scratch")),
        ([0.1, 0.9, 0.0], 0.5, ("ng", "least_cost", "scratch")),
        ([0.5, 0.5, 0.0], 0.0, ("undecidable", "review_costs_less", "good")),
    ],
)
def test_costs_move_the_thresholds(
    probabilities: list[float], review: float, expected: tuple[str, str, str]
) -> None:
    policy = DecisionPolicy.read(
        {"costs": {"scratch": {"miss": 50}, "good": {"false_alarm": 2}}, "review": review}
    )
    # The set has both roles, which costs are there to weigh.
    assert shown(conclude(CLASSES, found(probabilities, [0.5, 0.5, 0.5]), policy)) == expected
    assert shown(conclude(CLASSES, found(probabilities, None), policy)) == expected


def test_a_budget_moves_the_threshold_of_its_role() -> None:
    policy = DecisionPolicy(budget=Budget(missed_ng=0.05))
    sure = found([0.9, 0.1, 0.0], [0.9, 0.05, 0.05], roles=(0.9, 0.05, 1))
    unsure = found([0.9, 0.1, 0.0], [0.9, 0.05, 0.05], roles=(0.9, 0.06, 1))
    looser = found([0.9, 0.1, 0.0], [0.9, 0.11, 0.05], roles=(0.9, 0.04, 1))
    assert conclude(CLASSES, sure, policy).reason == "certain"
    assert shown(conclude(CLASSES, unsure, policy)) == ("undecidable", "budget", "good")
    assert conclude(CLASSES, looser, policy).decision == "ok"
    alarms = DecisionPolicy(budget=Budget(false_alarms=0.05))
    bad = found([0.1, 0.9, 0.0], [0.05, 0.9, 0.05], roles=(0.06, 0.9, 1))
    assert conclude(CLASSES, bad, alarms).decision == "undecidable"
    assert conclude(CLASSES, bad).decision == "ng"


def test_a_budget_that_a_version_cannot_keep_decides_nothing_that_it_speaks_of() -> None:
    policy = DecisionPolicy(budget=Budget(missed_ng=0.05))
    few = found([0.9, 0.1, 0.0], [0.9, 0.05, 0.05], roles=(0.9, 0.0625, 1), groups=(16, 15, 0))
    assert shown(conclude(CLASSES, few, policy)) == ("undecidable", "budget_not_held", "good")
    bad = found([0.1, 0.9, 0.0], [0.05, 0.9, 0.05], roles=(0.01, 0.9, 1), groups=(16, 15, 0))
    assert conclude(CLASSES, bad, policy).decision == "ng"  # no miss
    old = conclude(CLASSES, found([0.9, 0.1, 0.0], None), policy)
    assert shown(old) == ("undecidable", "budget_not_held", "good")


def test_a_budget_holds_against_costs() -> None:
    policy = DecisionPolicy.read({"review": 5.0, "budget": {"missed_ng": 0.05}})
    unsure = found([0.9, 0.1, 0.0], [0.9, 0.5, 0.5], roles=(0.9, 0.5, 1))
    assert shown(conclude(CLASSES, unsure, policy)) == ("undecidable", "budget", "good")
    sure = found([0.9, 0.1, 0.0], [0.9, 0.5, 0.5], roles=(0.9, 0.01, 1))
    assert conclude(CLASSES, sure, policy).reason == "least_cost"


def test_a_budget_of_a_role_without_classes_asks_nothing() -> None:
    policy = DecisionPolicy(budget=Budget(missed_ng=0.05))
    made = conclude([GOOD, class_spec("ok")], found([0.9, 0.1], [0.9, 0.0]), policy)
    assert made.decision == "ok"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"alpha": 0}, r"alpha is 0\.0; a share between 0 and 1"),
        ({"alpha": 1}, r"alpha is 1\.0"),
        ({"alpha": -0.1}, r"alpha is -0\.1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"alpha": "much"}, "alpha is 'much'"),
        ({"review": -1}, r"review is -1\.0; a cost is a number, 0 or more"),
        ({"review": float("inf")}, "review is inf"),
        ({"review": 1, "costs": {"scratch": {"miss": -2}}}, r"cost miss is -2\.0"),
        ({"review": 1, "costs": {"scratch": {"false_alarm": -2}}}, r"false_alarm is -2\.0"),
        ({"costs": {"scratch": {"miss": 2}}}, "review is not"),
        ({"budget": {"missed_ng": 0}}, r"missed_ng is 0\.0; a share"),
        ({"budget": {"false_alarms": 1.5}}, r"false_alarms is 1\.5"),
        ({"budgets": {}}, "budgets"),
    ],
)
def test_what_cannot_be_asked(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as caught:
        DecisionPolicy.read(values)
    assert caught.value.field is not None
    assert caught.value.field.startswith("decisions.")


def test_a_budget_below_one_in_n_and_one_is_refused_with_what_it_would_take() -> None:
    budget = Budget(missed_ng=0.05)
    check_budget(budget, {"ok": 3, "ng": 19}, "there are")
    with pytest.raises(BadInput, match=r"there are 18 images of role ng.* 0\.0526") as caught:
        check_budget(budget, {"ok": 99, "ng": 18}, "there are")
    assert "label 19 images of role ng" in caught.value.fix
    assert caught.value.field == "decisions.budget.missed_ng"
    with pytest.raises(BadInput, match="16 images of role ok"):
        check_budget(Budget(false_alarms=0.01), {"ok": 16, "ng": 999}, "there are")


def test_costs_of_an_unknown_class() -> None:
    policy = DecisionPolicy.read({"review": 1, "costs": {"dent": {"miss": 2}}})
    with pytest.raises(BadInput, match="'dent', which is not there") as caught:
        check_names(policy, ["good", "scratch"])
    assert "good, scratch" in caught.value.fix


def test_every_reason_has_a_sentence() -> None:
    assert list(SENTENCES) == list(REASONS)
    assert all(text.endswith(".") for text in SENTENCES.values())
