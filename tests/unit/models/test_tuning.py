"""A tuning from end to end: reproducible, resumable, measured on what it has not seen."""

import math
import platform
from collections import defaultdict
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import models.tuning as tuning_module
from models.artifact import Artifact
from models.backbone import Backbone
from models.baselines.zero_shot import zero_shot
from models.checkpoint import Checkpoint
from models.collapse.metrics import collapse_metrics
from models.collapse.regularizers import class_means
from models.dataset import LabelledImage, snapshot_digest
from models.decision import class_probabilities
from models.errors import BadDataset, BadName, BadRecipe, Cancelled, CheckpointMismatch
from models.evaluation.compared import probe_probabilities, wrong_images
from models.evaluation.metrics import evaluate
from models.evaluation.splits import cross_validation_folds
from models.features import FeatureStore, MemoryFeatureStore, image_features
from models.fusion import Texts, fused_embeddings
from models.imaging import View
from models.recipe import Recipe
from models.training_set import TrainingSet
from models.tuner import Tuner
from models.tuning import Observer, SilentObserver, TuningProgress
from tests.unit.models.conftest import CLASSES, draw_images, encode, labelled, noise_image

Tune = Callable[..., Artifact]


class Watch:
    """Keeps all that it is told; cancels where it is asked to."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.progress: list[TuningProgress] = []
        self.checkpoints: list[bytes] = []
        self._cancel_after = cancel_after

    def on_progress(self, progress: TuningProgress) -> None:
        self.progress.append(progress)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.checkpoints.append(checkpoint.to_bytes())
        if len(self.checkpoints) == self._cancel_after:
            raise Cancelled

    @property
    def last(self) -> Checkpoint:
        return Checkpoint.from_bytes(self.checkpoints[-1])


def holdout(*counts: int) -> list[LabelledImage]:
    return draw_images(*counts, split="holdout", first=200)


def training_parts(
    images: list[LabelledImage], backbone: Backbone, store: MemoryFeatureStore
) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    names = [spec.prompt_name for spec in CLASSES]
    labels = torch.tensor([image.label for image in images])
    return names, image_features(images, backbone, View(), store), labels


def text_of(artifact: Artifact) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in artifact.tensors.items()}


def same(array: np.ndarray, tensor: Tensor) -> bool:
    return torch.equal(torch.tensor(array), tensor)


def test_what_an_artifact_says_of_itself(
    artifact: Artifact, backbone: Backbone, recipe: Recipe, images: list[LabelledImage]
) -> None:
    header = artifact.header

    assert (header.backbone, header.backbone_digest) == ("tiny", backbone.digest)
    assert header.classes == CLASSES
    assert header.recipe == recipe
    assert header.seed == 0
    assert header.view == View()
    assert header.snapshot == snapshot_digest(CLASSES, images)
    assert header.n_train == [5, 4, 3]
    assert header.logit_scale == backbone.logit_scale
    assert header.created.utcoffset() is not None
    assert header.made_on.endswith(f", fp32, PyTorch {torch.__version__}")
    assert header.made_on.startswith(platform.machine())
    assert set(header.metrics.seconds) == {"features", "tune", "evaluate"}


def test_an_artifact_holds_what_the_tuner_gives(
    artifact: Artifact,
    backbone: Backbone,
    recipe: Recipe,
    images: list[LabelledImage],
    store: MemoryFeatureStore,
) -> None:
    names, features, labels = training_parts(images, backbone, store)
    data = TrainingSet(names, features, labels)
    tuner = Tuner(backbone, data, recipe, torch.Generator().manual_seed(0))

    assert same(artifact.tensors["text_features"], tuner.run())
    assert same(artifact.tensors["ctx"], tuner.prompts.ctx.detach())
    assert same(artifact.tensors["class_means"], class_means(features, labels, 3))
    before = zero_shot(backbone, names)
    groups = TrainingSet(names, features, labels, [image.group for image in images])
    texts = Texts(tuner.text_features(), before)
    fused = fused_embeddings(texts, groups, recipe, backbone.logit_scale)
    assert same(artifact.class_embeddings, fused)
    assert same(artifact.tensors["zero_shot_features"], before)
    metrics = artifact.header.metrics
    assert metrics.collapse_before == collapse_metrics(before, features, labels)
    assert metrics.collapse_after == collapse_metrics(tuner.text_features(), features, labels)
    assert [record["loss"] for record in metrics.history] == [
        record.loss for record in tuner.history
    ]


def test_one_seed_gives_one_artifact_and_another_another(tune: Tune, artifact: Artifact) -> None:
    again, other = tune(), tune(seed=1)

    assert again.digest == artifact.digest
    assert text_of(again) == text_of(artifact)
    assert again.header.metrics.tuned == artifact.header.metrics.tuned
    assert other.digest != artifact.digest


def test_the_largest_seed(tune: Tune, artifact: Artifact) -> None:
    large = tune(seed=2**63 - 1)

    assert large.header.metrics.tuned.n_images == 12
    assert large.digest != artifact.digest


def test_the_recipe_says_how_many_threads_compute_anything(
    tune: Tune, recipe: Recipe, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = defaultdict(set)

    def watch(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            seen[name].add(torch.get_num_threads())
            return function(*args, **options)

        monkeypatch.setattr(owner, name, call)

    for name in ("encode_images", "encode_texts"):
        watch(backbone, name)
    watch(backbone.text, "forward")
    for name in ("class_means", "fused_embeddings", "class_probabilities", "collapse_metrics"):
        watch(tuning_module, name)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tune(recipe=recipe.model_copy(update={"threads": 2, "lc_form": "anchored"}))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert len(seen) == 7
    assert set.union(*seen.values()) == {2}


def test_a_random_start_is_the_seeds(tune: Tune, recipe: Recipe) -> None:
    random = recipe.model_copy(update={"ctx_init": None})
    one, same, other = (tune(recipe=random, seed=seed) for seed in (3, 3, 4))

    assert one.digest == same.digest
    assert text_of(one)["ctx"] != text_of(other)["ctx"]


def test_the_view_is_in_the_features_and_the_artifact(tune: Tune, artifact: Artifact) -> None:
    view = View(roi=(0, 0, 0.5, 0.5))
    cut = tune(view=view)

    assert cut.header.view == view
    assert text_of(cut)["class_means"] != text_of(artifact)["class_means"]


def test_without_a_holdout_it_is_measured_out_of_fold(artifact: Artifact) -> None:
    metrics = artifact.header.metrics

    assert metrics.tuned.basis == metrics.zero_shot.basis == "out-of-fold"
    assert metrics.tuned.n_images == metrics.zero_shot.n_images == 12
    assert [sum(row) for row in metrics.tuned.confusion] == [5, 4, 3]


def test_out_of_fold_predictions_come_from_the_other_folds_alone(
    artifact: Artifact,
    backbone: Backbone,
    recipe: Recipe,
    images: list[LabelledImage],
    store: MemoryFeatureStore,
) -> None:
    names, features, labels = training_parts(images, backbone, store)
    groups = [image.group for image in images]
    expected = torch.zeros(len(images), 3)
    for train, test in cross_validation_folds(labels.tolist(), groups, recipe.folds, seed=0):
        part = TrainingSet(names, features, labels, groups).subset(train)
        text = Tuner(backbone, part, recipe, torch.Generator().manual_seed(0)).run()
        texts = Texts(text, zero_shot(backbone, names))
        embeddings = fused_embeddings(texts, part, recipe, backbone.logit_scale)
        for index in test:
            one, scale = features[[index]].numpy(), backbone.logit_scale
            row = class_probabilities(one, embeddings.numpy(), scale)
            expected[index] = torch.from_numpy(row[0])

    measured, wanted = artifact.header.metrics.tuned, evaluate(expected, labels, "out-of-fold")
    assert measured.confusion == wanted.confusion
    assert measured.ece == pytest.approx(wanted.ece, abs=1e-5)


@pytest.mark.parametrize(
    ("counts", "basis", "n_images"),
    [((5, 5, 5), "holdout", 15), ((7, 5, 6), "holdout", 18), ((9, 9, 4), "out-of-fold", 12)],
)
def test_a_holdout_counts_where_every_class_has_five_groups(
    tune: Tune, images: list[LabelledImage], counts: tuple[int, ...], basis: str, n_images: int
) -> None:
    metrics = tune(images=[*images, *holdout(*counts)]).header.metrics

    assert metrics.tuned.basis == metrics.zero_shot.basis == basis
    assert metrics.tuned.n_images == n_images


def test_one_shot_is_measured_on_the_holdout(tune: Tune) -> None:
    artifact = tune(images=[*draw_images(1, 1, 1), *holdout(5, 5, 5)])

    assert artifact.header.n_train == [1, 1, 1]
    assert artifact.header.metrics.tuned.basis == "holdout"
    assert artifact.header.metrics.collapse_after.nc1 == pytest.approx(0, abs=1e-6)


def test_a_holdout_that_does_not_count_is_not_encoded(
    tune: Tune, images: list[LabelledImage]
) -> None:
    watch = Watch()
    tune(images=[*images, *holdout(9, 9, 4)], observer=watch)

    assert watch.progress[0].total == len(images)


def test_images_of_one_part_are_one_group_of_a_holdout(
    tune: Tune, images: list[LabelledImage]
) -> None:
    parts = [
        labelled(image.label, image.read(), group=f"part {number % 4}", split="holdout")
        for number, image in enumerate(draw_images(0, 0, 9, split="holdout", first=200))
    ]

    artifact = tune(images=[*images, *holdout(5, 5, 0), *parts])
    assert artifact.header.metrics.tuned.basis == "out-of-fold"


def test_a_holdout_never_trains(
    tune: Tune, artifact: Artifact, images: list[LabelledImage]
) -> None:
    held = tune(images=[*images, *holdout(5, 5, 5)])

    assert text_of(held) == text_of(artifact)
    assert held.header.n_train == [5, 4, 3]
    assert held.header.snapshot != artifact.header.snapshot


def test_groups_are_kept_together_in_folds(
    tune: Tune, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [
        labelled(image.label, image.read(), group=f"part {number // 2}")
        for number, image in enumerate(draw_images(4, 4, 4))
    ]
    runs: list[TrainingSet] = []
    make = Tuner.__init__

    def keep(self: Tuner, backbone: Backbone, data: TrainingSet, *rest: Any, **more: Any) -> None:
        runs.append(data)
        make(self, backbone, data, *rest, **more)

    monkeypatch.setattr(Tuner, "__init__", keep)
    tune(images=images, recipe=recipe)

    whole, *folds = runs
    assert len(folds) == recipe.folds
    for fold in folds:
        parts = defaultdict(int)
        for feature in fold.features:
            (index,) = (whole.features == feature).all(dim=1).nonzero()[0].tolist()
            parts[images[index].group] += 1
        assert set(parts.values()) == {2}
        assert set(fold.labels.tolist()) == {0, 1, 2}


def test_the_observer_is_told_in_order(tune: Tune) -> None:
    watch = Watch()
    tune(observer=watch)

    phases = [(phase, list(steps)) for phase, steps in groupby(watch.progress, lambda p: p.phase)]
    assert [phase for phase, _ in phases] == ["features", "tune", "evaluate"]
    told = {phase: [(step.done, step.total) for step in steps] for phase, steps in phases}
    assert told["features"] == [(0, 12), (12, 12)]
    assert told["tune"] == [(3, 6), (6, 6)]
    # Two folds of 6 images: two batches an epoch, three epochs each.
    assert told["evaluate"] == [(n, 12) for n in (2, 4, 6, 8, 10, 12)]
    assert [progress.record.epoch for progress in watch.progress if progress.record] == [
        *(1, 2),
        *(1, 2, 3),
        *(1, 2, 3),
    ]
    assert len(watch.checkpoints) == 8
    assert [len(Checkpoint.from_bytes(data).runs) for data in watch.checkpoints] == [
        *(1, 1),
        *(2, 2, 2),
        *(3, 3, 3),
    ]


def test_the_seconds_left_are_known_after_the_first_step(tune: Tune) -> None:
    watch = Watch()
    tune(observer=watch)

    for _, steps in groupby(watch.progress, lambda progress: progress.phase):
        first, *others = (step.seconds_left for step in steps)
        assert first is None
        assert all(seconds is not None and seconds >= 0 for seconds in others)
        assert others[-1] == 0


@pytest.mark.parametrize("epochs", range(1, 9))
def test_it_goes_on_from_any_epoch_to_the_same_artifact(
    tune: Tune, artifact: Artifact, epochs: int
) -> None:
    watch, rest = Watch(cancel_after=epochs), Watch()
    with pytest.raises(Cancelled):
        tune(observer=watch)
    resumed = tune(observer=rest, checkpoint=watch.last)

    assert resumed.digest == artifact.digest
    assert text_of(resumed) == text_of(artifact)
    assert resumed.header.metrics.tuned == artifact.header.metrics.tuned
    assert resumed.header.metrics.history == artifact.header.metrics.history
    assert len(watch.checkpoints) + len(rest.checkpoints) == 8


def test_a_checkpoint_of_another_tuning_is_refused(
    tune: Tune, recipe: Recipe, images: list[LabelledImage], other_backbone: Backbone
) -> None:
    watch = Watch(cancel_after=4)
    with pytest.raises(Cancelled):
        tune(observer=watch)
    others: dict[str, dict[str, Any]] = {
        "recipe": {"recipe": recipe.model_copy(update={"lr": 0.2})},
        "seed": {"seed": 1},
        "images": {"images": images[1:]},
        "backbone and images": {"backbone": other_backbone},
        r"images\.": {"view": View(roi=(0, 0, 0.5, 1))},
    }

    for what, other in others.items():
        with pytest.raises(CheckpointMismatch, match=f"differs in {what}"):
            tune(**other, checkpoint=watch.last)


def test_cancelled_while_features_are_computed(tune: Tune) -> None:
    class Stop(SilentObserver):
        def on_progress(self, progress: TuningProgress) -> None:
            raise Cancelled

    with pytest.raises(Cancelled):
        tune(observer=Stop())


def test_a_second_tuning_encodes_no_image(
    tune: Tune, store: FeatureStore, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tune(store=store)

    def encode_images(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("an image was encoded again")

    monkeypatch.setattr(backbone, "encode_images", encode_images)
    assert tune(store=store).digest == first.digest


def test_images_that_look_alike_under_two_labels_give_an_artifact_that_can_be_read(
    tune: Tune,
) -> None:
    # Other bytes and the same pixels: the means of the two classes coincide.
    pictures = [noise_image(seed, (99, 99, 99)) for seed in (0, 1)]
    images = [
        *(labelled(0, encode(picture, "PNG")) for picture in pictures),
        *(labelled(1, encode(picture, "BMP")) for picture in pictures),
    ]

    artifact = tune(CLASSES[:2], images)
    again = Artifact.from_bytes(artifact.to_bytes())
    assert again.header == artifact.header
    after = again.header.metrics.collapse_after
    assert all(math.isfinite(value) for value in after.model_dump().values())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"classes": CLASSES[:1], "images": draw_images(4, 0, 0)}, BadDataset),
        ({"images": draw_images(4, 4, 1)}, BadDataset),
        ({"images": draw_images(4, 4, 0)}, BadDataset),
        ({"recipe": Recipe(n_ctx=2)}, BadRecipe),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    tune: Tune, change: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        tune(**change)


def test_a_class_name_too_long_for_the_tower_is_named(
    tune: Tune, images: list[LabelledImage]
) -> None:
    name = "x " * 40
    classes = [*CLASSES[:2], CLASSES[2].model_copy(update={"prompt_name": name})]

    with pytest.raises(BadName, match=name):
        tune(classes, images, Recipe(n_ctx=40, ctx_init=None))


def test_the_silent_observer_is_an_observer() -> None:
    assert isinstance(SilentObserver(), Observer)
    assert isinstance(Watch(), Observer)


def test_a_linear_probe_is_measured_on_the_same_images(artifact: Artifact, tune: Tune) -> None:
    for made, basis, counts in (
        (artifact, "out-of-fold", [5, 4, 3]),
        (tune(images=draw_images(5, 4, 3) + holdout(5, 6, 7)), "holdout", [5, 6, 7]),
    ):
        probe = made.header.metrics.linear_probe
        assert probe is not None
        assert probe.basis == basis
        assert [sum(row) for row in probe.confusion] == counts


def test_a_probe_predicts_each_image_by_others_alone(backbone: Backbone) -> None:
    features = torch.eye(4)
    data = TrainingSet(["a", "b"], features, torch.tensor([0, 1, 0, 1]))
    seen = probe_probabilities(backbone, data, [], features)
    unseen = probe_probabilities(backbone, data, [([0, 1], [2, 3]), ([2, 3], [0, 1])], features[:0])
    assert seen is not None
    assert unseen is not None
    assert seen.argmax(dim=1).tolist() == [0, 1, 0, 1]
    # Every image is orthogonal to those that its probe has learnt from.
    assert torch.allclose(unseen, torch.full((4, 2), 0.5), atol=1e-4)


def test_too_many_classes_and_images_are_not_probed(backbone: Backbone) -> None:
    names, labels = [str(index) for index in range(1001)], torch.arange(1001)
    data = TrainingSet(names, torch.zeros(1001, 1), labels)
    assert probe_probabilities(backbone, data, [], torch.zeros(0, 1)) is None


def test_it_names_what_it_was_wrong_about_the_surest_first(images: list[LabelledImage]) -> None:
    probabilities = torch.full((12, 3), 0.1)
    for index, image in enumerate(images):
        wrong = index in {1, 6, 11}
        taken = (image.label + 1) % 3 if wrong else image.label
        probabilities[index, taken] = {1: 0.7, 6: 0.9, 11: 0.8}.get(index, 0.95)
    found = wrong_images(images, probabilities, ["good", "scratch", "stain"])
    assert [image.sha256 for image in found] == [images[index].sha256 for index in (6, 11, 1)]
    assert [(image.label, image.predicted) for image in found] == [
        ("scratch", "stain"),
        ("stain", "good"),
        ("good", "scratch"),
    ]
    assert found[0].probability == pytest.approx(0.9)
    many = wrong_images(images, probabilities.roll(1, 1), ["good", "scratch", "stain"])
    assert len(many) == 8
    odd = labelled(0, b"x", name="caf\udce9.png")
    assert wrong_images([odd], torch.tensor([[0.2, 0.8]]), ["a", "b"])[0].name == "caf?.png"
