"""The search for a recipe, in one process: space, proposals, choice, budget."""

import itertools

import numpy as np
import pytest
import torch

from models.backbone import Backbone
from models.dataset import LabelledImage
from models.errors import BadDataset, BadRecipe
from models.features import MemoryFeatureStore
from models.imaging import View
from models.recipe import Recipe
from models.search.budget import SearchBudget, check_searchable
from models.search.choice import best_trial, choose, objective, paired_gain
from models.search.data import training_data
from models.search.local import LocalSearch
from models.search.result import TrialRecord, Value
from models.search.space import SPACE, Between, OneOf, params_of, recipe_of, space_of
from models.search.study import importance, is_behind, propose
from models.search.trial import Trials, folds_of
from models.training_set import TrainingSet
from models.tuner import Tuner
from tests.unit.models.conftest import CLASSES, draw_images

AUTO = params_of(Recipe(), SPACE)
QUICK = {"steps": 6, "warmup_steps": 1, "batch_size": 4, "folds": 2, "threads": 1, "n_ctx": 4}


def record(number: int, macro: float | None, log_loss: float = 1.0, **params: Value) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="complete" if macro is not None else "pruned",
        params=AUTO | params,
        folds=[macro if macro is not None else 0.1],
        macro=macro,
        log_loss=None if macro is None else log_loss,
    )


@pytest.fixture(scope="module")
def data(backbone: Backbone) -> TrainingSet:
    images = draw_images(5, 4, 3)
    return training_data(CLASSES, images, backbone, View(), MemoryFeatureStore())


def test_auto_lies_in_the_space_and_comes_back_from_it() -> None:
    assert recipe_of(AUTO, {}) == Recipe()
    for name, where in SPACE.items():
        assert where.distribution()._contains(where.distribution().to_internal_repr(AUTO[name]))
    fixed = {"steps": 60, "lr": 0.1}
    assert set(space_of(fixed)) == set(SPACE) - {"steps", "lr"}


def test_every_corner_of_the_space_is_a_recipe() -> None:
    ends: dict[str, tuple[Value, ...]] = {}
    for name, where in SPACE.items():
        assert isinstance(where, OneOf | Between)
        ends[name] = where.values if isinstance(where, OneOf) else (where.low, where.high)
    for place in range(max(len(values) for values in ends.values())):
        recipe_of({name: values[place % len(values)] for name, values in ends.items()}, {})


def test_proposals_are_the_same_for_the_same_trials_and_differ_by_number() -> None:
    trials = [record(n, 0.5 + n / 100, lr=0.02 + n / 100) for n in range(10)]
    first = propose(SPACE, trials, seed=2**63 - 1, number=10)
    assert first == propose(SPACE, trials, seed=2**63 - 1, number=10)
    assert first != propose(SPACE, trials, seed=2**63 - 1, number=11)
    recipe_of(first, {})
    # A row of a space that there is no more is passed over.
    foreign = record(10, 0.9, lr=50.0)
    assert propose(SPACE, [*trials, foreign], seed=2**63 - 1, number=10) == first
    assert not is_behind(SPACE, trials, foreign)


def test_one_that_is_behind_is_given_up_once_there_are_others() -> None:
    trials = [record(n, 0.8 + n / 100) for n in range(5)]
    bad = TrialRecord(number=9, state="running", params=AUTO, folds=[0.3])
    assert is_behind(SPACE, trials, bad)
    assert not is_behind(SPACE, trials, bad.model_copy(update={"folds": [0.95]}))
    assert not is_behind(SPACE, trials[:3], bad)


def test_importance_finds_what_matters() -> None:
    rng = np.random.default_rng(0)
    trials = []
    for number in range(24):
        lr, caution = float(rng.uniform(0.02, 1.0)), float(rng.integers(0, 25))
        trials.append(record(number, 0.5 + lr / 3, lr=lr, caution=caution))
    found = importance(SPACE, trials)
    assert found[0].name == "lr"
    assert sum(each.share for each in found) == pytest.approx(1)
    assert importance(SPACE, trials[:5]) == []
    assert importance(SPACE, [record(n, 0.5) for n in range(20)]) == []


def test_the_best_is_the_most_accurate_then_the_surest_then_the_first() -> None:
    trials = [record(0, 0.9, 0.5), record(1, 0.9, 0.4), record(2, 0.9, 0.4), record(3, None)]
    assert best_trial(trials) == 1
    assert best_trial([record(3, None)]) is None
    assert objective(0.9, 0.4) > objective(0.9, 0.5) > objective(0.899, 0.0)


def test_a_paired_gain_by_hand() -> None:
    """Class 0 has 4 images, class 1 has 2: one more right of each is worth 1/8 and 1/4."""
    labels, groups = [0, 0, 0, 0, 1, 1], list("abcdef")
    old = [True, True, False, False, False, True]
    new = [True, True, True, False, True, True]
    gain, error = paired_gain(new, old, labels, groups)
    assert gain == pytest.approx(1 / 8 + 1 / 4)
    assert error == pytest.approx((1 / 64 + 1 / 16) ** 0.5)
    # Of one part they are one observation, which says less.
    together = paired_gain(new, old, labels, list("abcdce"))
    assert together[0] == pytest.approx(gain)
    assert together[1] == pytest.approx(1 / 8 + 1 / 4)
    assert paired_gain(old, old, labels, groups) == (0.0, 0.0)


def choice_of(new: list[list[bool]], labels: list[int]) -> int:
    right = dict(enumerate(new))
    names = [str(n) for n in range(len(labels))]
    trials = [
        record(n, 0.5 + paired_gain(own, new[0], labels, names)[0]) for n, own in right.items()
    ]
    return choose(trials, right, labels, names).number


def test_noise_is_never_chosen_and_a_better_recipe_is() -> None:
    rng = np.random.default_rng(0)
    labels = [0] * 16 + [1] * 16 + [2] * 16
    taken = []
    for _ in range(40):
        parts = rng.random(48) < 0.8  # 30 recipes that differ by chance on a fifth of the images
        pool = [[bool(it) for it in parts ^ (rng.random(48) < 0.1)] for _ in range(31)]
        rates = [np.mean(own) for own in pool]
        middle = pool.pop(int(np.argsort(rates)[15]))
        taken.append(choice_of([middle, *pool], labels) != 0)
    assert sum(taken) <= 2
    auto = [n % 2 == 0 for n in range(48)]
    better = [n % 8 != 1 for n in range(48)]
    assert choice_of([auto, better, auto], labels) == 1
    one_more = [*auto[:-1], True]
    assert choice_of([auto, one_more], labels) == 0
    assert choice_of([auto], labels) == 0


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"minutes": 0}, "search.minutes"),
        ({"minutes": float("nan")}, "search.minutes"),
        ({"minutes": float("inf")}, "search.minutes"),
        ({"minutes": "soon"}, "search.minutes"),
        ({"trials": -1}, "search.trials"),
        ({"hours": 1}, "search.hours"),
        ({"fixed": {"lr": -1}}, "lr"),
        ({"fixed": AUTO}, "search.fixed"),
    ],
)
def test_a_budget_that_is_none(values: dict[str, object], field: str) -> None:
    with pytest.raises(BadRecipe) as caught:
        SearchBudget.read(values)
    assert caught.value.field == field
    assert SearchBudget.read().minutes > 0


def test_two_parts_of_each_class_are_needed(images: list[LabelledImage]) -> None:
    check_searchable(CLASSES, images)
    lonely = [image for image in images if image.label < 2] + [
        image for image in images if image.label == 2
    ][:1]
    with pytest.raises(BadDataset, match="1 training image"):
        check_searchable(CLASSES, lonely)


def test_a_search_in_one_process(backbone: Backbone, data: TrainingSet) -> None:
    seen: list[int] = []
    budget = SearchBudget.read({"trials": 9, "fixed": QUICK})
    runner = Trials(backbone, data, 3)
    search = LocalSearch(runner, data, budget, 3, lambda trials, _: seen.append(len(trials)))
    recipe, result = search.run()
    assert seen == list(range(1, 10))
    assert [trial.number for trial in result.trials] == list(range(9))
    first = result.trials[0]
    assert first.params == params_of(budget.auto, space_of(QUICK))
    assert (result.n_images, result.n_folds) == (12, 2)
    assert result.n_folds == folds_of(data, budget.auto) == len(first.folds)
    assert result.choice is not None
    assert result.choice.best == result.best
    assert recipe == recipe_of(result.trials[result.choice.number].params, QUICK)
    curve = [trial.best_so_far for trial in result.trials]
    assert all(a <= b for a, b in itertools.pairwise(curve) if a is not None and b is not None)
    # The same seed, images and budget find the same.
    again = LocalSearch(Trials(backbone, data, 3), data, budget, 3).run()[1]
    for one, other in zip(result.trials, again.trials, strict=True):
        assert (one.params, one.folds, one.state) == (other.params, other.folds, other.state)


def test_auto_is_tried_to_its_end_whatever_the_budget(
    backbone: Backbone, data: TrainingSet
) -> None:
    budget = SearchBudget.read({"minutes": 1e-9, "fixed": QUICK})
    recipe, result = LocalSearch(Trials(backbone, data, 0), data, budget, 0).run()
    assert [trial.state for trial in result.trials] == ["complete"]
    assert recipe == budget.auto
    assert result.choice is not None
    assert "none was better" in result.choice.reason


def test_an_auto_that_cannot_be_tuned_is_no_search(backbone: Backbone, data: TrainingSet) -> None:
    budget = SearchBudget.read({"trials": 2, "fixed": QUICK | {"ctx_init": "a " * 9}})
    with pytest.raises(BadRecipe, match="ctx_init"):
        LocalSearch(Trials(backbone, data, 0), data, budget, 0).run()


def test_a_trial_that_does_not_fit_into_memory_is_begun_again_in_smaller_pieces(
    backbone: Backbone, data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.read(QUICK)
    whole = Trials(backbone, data, 0).run(recipe)
    calls = []

    class Short(Tuner):
        def run(self) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().run()

    monkeypatch.setattr("models.tuned_embeddings.Tuner", Short)
    again = Trials(backbone, data, 0).run(recipe)
    assert len(calls) == 4
    assert again.macro == pytest.approx(whole.macro)
    assert again.right == whole.right


def test_a_trial_that_is_given_up_has_no_result(backbone: Backbone, data: TrainingSet) -> None:
    outcome = Trials(backbone, data, 0).run(Recipe.read(QUICK), go_on=lambda _: False)
    assert len(outcome.folds) == 1
    assert (outcome.macro, outcome.right) == (None, ())
