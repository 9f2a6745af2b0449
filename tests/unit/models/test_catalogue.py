"""Methods by name, and text-only tuners behind the protocol of all methods."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.baselines.clap import CLAP
from models.baselines.zero_shot import zero_shot
from models.errors import BadRecipe
from models.fusion import Texts, fused_embeddings
from models.methods.catalogue import GROUPS, method, names
from models.methods.maple import MaPLe
from models.methods.method import Classifier, Method, probabilities
from models.methods.tuned import Tuned, published_schedule
from models.recipe import Recipe
from models.training_set import Images, TrainingSet
from models.tuner import Tuner
from tests.unit.models.matrices import random_matrix

NAMES = ["good", "scratch", "stain"]
FEATURES = normalize(random_matrix(9, 16, 0).float(), dim=1)
DATA = TrainingSet(NAMES, FEATURES, torch.arange(9) % 3)
SHORT = "+steps=6+warmup_steps=1+batch_size=4+threads=1"


@pytest.mark.parametrize("name", GROUPS["all"])
def test_every_name_is_a_method(name: str) -> None:
    assert isinstance(method(name), Method)


def test_the_groups() -> None:
    assert set(names("baselines")) < set(names("all-text")) < set(names("all"))
    assert set(names("all")) - set(names("all-text")) == {"cocoop", "ivlp", "maple", "promptsrc"}
    with pytest.raises(BadRecipe, match="no method 'some'") as caught:
        names("some")
    assert "all-text" in caught.value.fix


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("coop+lc", {"lc_weight": 1.0, "mi_weight": 0.0, "method": "coop"}),
        ("kgcoop+mi=5+la", {"mi_weight": 5, "logit_adjustment": 1.0, "method": "kgcoop"}),
        ("prograd+alpha", {"alpha": 0.5, "fusion": "mean", "n_ctx": 16}),
        ("coop+lc_form=anchored", {"lc_form": "anchored", "class_specific": False}),
        ("auto+caution=1", {"caution": 1}),
    ],
)
def test_what_goes_on_top(spec: str, expected: dict[str, object]) -> None:
    tuned = method(spec)

    assert isinstance(tuned, Tuned)
    assert expected.items() <= tuned.settings.items()


def test_settings_of_other_kinds_of_tuners() -> None:
    deep = method("maple+epochs=3+lc=2")

    assert isinstance(deep, MaPLe)
    assert (deep.recipe.epochs, deep.recipe.lc_weight) == (3, 2)
    assert method("clap") == CLAP()


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("koop", "no method 'koop'"),
        ("clap+lc", "on top of the baseline 'clap'"),
        ("coop+steps", "'steps' in 'coop[+]steps' has no value"),
        ("coop+speed=3", "speed is 3"),
        ("coop+lr=-1", "lr is -1"),
        ("maple+epochs=0", "epochs is 0"),
        ("maple+shots=3", "shots is 3"),
    ],
)
def test_a_spec_that_means_nothing_is_named(spec: str, problem: str) -> None:
    with pytest.raises(BadRecipe, match=problem):
        method(spec)


def test_a_tuner_behind_the_protocol_is_the_tuner(backbone: Backbone) -> None:
    tuned = method("auto" + SHORT)
    assert isinstance(tuned, Tuned)
    classifier = tuned.fit(backbone, DATA, seed=3)

    recipe = tuned.recipe(DATA)
    text = Tuner(backbone, DATA, recipe, torch.Generator().manual_seed(3)).run()
    texts = Texts(text, zero_shot(backbone, NAMES))
    fused = fused_embeddings(texts, DATA, recipe, backbone.logit_scale)
    assert torch.equal(classifier.text_features, text)
    images = Images(FEATURES)
    assert torch.equal(classifier.logits(images), backbone.logit_scale * FEATURES @ fused.T)
    assert torch.equal(classifier.image_features(images), FEATURES)
    torch.testing.assert_close(probabilities(classifier, images).sum(dim=1), torch.ones(9))
    assert json.loads(json.dumps(classifier.settings)) == recipe.model_dump()


def test_other_names_are_read_in_the_tuned_context(backbone: Backbone) -> None:
    tuner = method("coop+ctx_init=a photo of a+n_ctx=4" + SHORT)
    assert isinstance(tuner, Tuned)
    classifier = tuner.fit(backbone, DATA, seed=0)

    same, other = classifier.renamed(NAMES), classifier.renamed(["dog", "cat"])
    assert isinstance(same, Classifier)
    assert isinstance(other, Classifier)
    torch.testing.assert_close(same.text_features, classifier.text_features)
    assert other.logits(Images(FEATURES)).shape == (9, 2)


def test_an_untuned_context_is_zero_shot_for_other_names(backbone: Backbone) -> None:
    tuner = method("coop+ctx_init=a photo of a+n_ctx=4+lr=1e-9" + SHORT)
    assert isinstance(tuner, Tuned)
    other = tuner.fit(backbone, DATA, seed=0).renamed(["dog", "cat"])

    assert other is not None
    torch.testing.assert_close(other.text_features, zero_shot(backbone, ["dog", "cat"]))


def test_class_specific_contexts_say_nothing_of_other_classes(backbone: Backbone) -> None:
    tuner = Tuned(
        {"class_specific": True, "steps": 2, "warmup_steps": 1, "threads": 1, "batch_size": 4}
    )

    assert tuner.fit(backbone, DATA, seed=0).renamed(["dog", "cat"]) is None


@pytest.mark.parametrize(
    ("tuner", "shots", "steps", "warmup", "batch"),
    [
        ("coop", 16, 200 * 4, 4, 32),
        ("coop", 2, 100 * 1, 1, 32),
        ("coop", 1, 50 * 1, 1, 32),
        ("kgcoop", 16, 100 * 1, 1, 128),
    ],
)
def test_published_schedules_by_hand(
    tuner: str, shots: int, steps: int, warmup: int, batch: int
) -> None:
    labels = torch.arange(7).repeat(shots)
    data = TrainingSet([str(n) for n in range(7)], torch.zeros(len(labels), 2), labels)

    assert published_schedule(tuner, data) == {
        "lr": 0.002, "batch_size": batch, "steps": steps, "warmup_steps": warmup,
    }  # fmt: skip
    published, ours = method(f"{tuner}+published"), method(tuner)
    assert isinstance(published, Tuned)
    assert isinstance(ours, Tuned)
    assert published.recipe(data).steps == steps
    assert ours.recipe(data).steps == Recipe().steps


def test_settings_win_over_a_schedule() -> None:
    tuned = method("coop+steps=33+published")
    assert isinstance(tuned, Tuned)

    assert tuned.recipe(DATA).steps == 33
    assert tuned.recipe(replace(DATA, groups=list("abcdefghi"))).lr == 0.002
