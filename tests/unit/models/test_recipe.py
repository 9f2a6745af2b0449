"""The recipe: validated once, never changed, known by its digest."""

import math

import pytest
from pydantic import ValidationError

from models.errors import BadRecipe
from models.recipe import Recipe

# A value other than the default for every hyperparameter.
OTHERS = {
    "method": "coop",
    "guidance": 2.0,
    "n_ctx": 16,
    "class_specific": True,
    "ctx_init": None,
    "class_token_position": "front",
    "steps": 151,
    "batch_size": 33,
    "lr": 0.5,
    "warmup_steps": 11,
    "momentum": 0.5,
    "weight_decay": 0.5,
    "lc_weight": 0.5,
    "lc_form": "anchored",
    "mi_weight": 0.25,
    "mi_form": "gram",
    "logit_adjustment": 0.25,
    "fusion": "mean",
    "prior_images": 2.0,
    "caution": 1.0,
    "alpha": 0.75,
    "folds": 5,
    "threads": 3,
}


def test_every_hyperparameter_is_in_the_digest() -> None:
    digests = {Recipe(**{name: value}).digest for name, value in OTHERS.items()}

    assert set(OTHERS) == set(Recipe.model_fields)
    assert len(digests | {Recipe().digest}) == len(OTHERS) + 1


def test_a_recipe_comes_back_from_its_json() -> None:
    recipe = Recipe(**OTHERS)

    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert again.digest == recipe.digest
    assert recipe.digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("n_classes", "n_images", "folds"),
    [
        (2, 1000, 5),
        (6, 96, 5),
        (7, 112, 4),
        (8, 1000, 3),
        (500, 8000, 3),
        (2, 30, 5),
        (2, 29, 4),
        (2, 23, 3),
        (2, 2, 3),
    ],
)
def test_few_classes_have_more_folds_and_few_images_fewer(
    n_classes: int, n_images: int, folds: int
) -> None:
    assert Recipe().n_folds(n_classes, n_images) == folds
    assert Recipe(folds=9).n_folds(n_classes, n_images) == 9


def test_a_recipe_never_changes() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_ctx", 0),
        ("n_ctx", 65),
        ("n_ctx", 4.5),
        ("steps", 0),
        ("batch_size", 0),
        ("lr", 0),
        ("lr", -1.0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", "fast"),
        ("warmup_steps", -1),
        ("momentum", 1.0),
        ("weight_decay", 2.0),
        ("lc_weight", -0.1),
        ("lc_form", "round"),
        ("mi_weight", math.nan),
        ("mi_form", None),
        ("class_token_position", "back"),
        ("logit_adjustment", 11.0),
        ("alpha", -1.0),
        ("folds", 1),
        ("threads", 0),
        ("epochs", 5),
    ],
)
def test_a_bad_value_is_named_with_its_field(field: str, value: object) -> None:
    with pytest.raises(BadRecipe) as caught:
        Recipe.read({field: value})
    assert caught.value.field == field
    assert f"{field} is {value!r}" in caught.value.problem
    assert "n_ctx, class_specific" in caught.value.fix


@pytest.mark.parametrize("phrase", ["a\0b", "\ud800", "", " \u200b", "x" * 201])
def test_a_phrase_that_no_database_keeps_or_nobody_can_read(phrase: str) -> None:
    with pytest.raises(BadRecipe, match="The ctx_init") as caught:
        Recipe.read({"ctx_init": phrase})
    assert caught.value.field == "ctx_init"


def test_a_bad_value_is_named_in_short() -> None:
    with pytest.raises(BadRecipe) as caught:
        Recipe.read({"lr": "x" * 100_000})
    assert len(caught.value.problem) < 300


def test_a_warm_up_must_leave_steps_to_tune() -> None:
    assert Recipe(steps=1, warmup_steps=0).steps == 1
    with pytest.raises(BadRecipe, match="warmup_steps is 10, which leaves nothing of 10 steps"):
        Recipe.read({"steps": 10})


def test_what_comes_from_outside_is_read() -> None:
    assert Recipe.read({}) == Recipe()
    assert Recipe.read({"lr": 1}).lr == 1.0


@pytest.mark.parametrize("method", ["cocoop", "ivlp", "maple", "promptsrc"])
def test_a_method_that_cannot_be_served_is_refused_with_the_reason(method: str) -> None:
    with pytest.raises(BadRecipe, match=f"{method!r} cannot be served from fixed") as caught:
        Recipe.read({"method": method})

    assert caught.value.field == "method"
    assert "coop, kgcoop, prograd, cpt" in caught.value.fix
