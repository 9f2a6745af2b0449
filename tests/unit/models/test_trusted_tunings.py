"""The decision rule that a tuning makes: of which images, measured on which, carried by what."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.artifact import Artifact
from models.backbone import Backbone
from models.checkpoint import Checkpoint
from models.classes import class_spec
from models.dataset import LabelledImage
from models.errors import BadInput, Cancelled, DamagedArtifact
from models.features import MemoryFeatureStore
from models.imaging import View
from models.predictor import Predictor
from models.recipe import Recipe
from models.trust.policy import Budget, DecisionPolicy
from models.trust.quantised import Quantised
from models.tuning import SilentObserver, Tuning
from tests.unit.models.conftest import CLASSES, draw_images, encode, labelled, noise_image

Tune = Callable[..., Artifact]


def test_one_score_for_each_image_by_the_fold_that_did_not_see_it(artifact: Artifact) -> None:
    rule = artifact.header.rule
    assert rule is not None
    assert artifact.header.format_version == 2
    assert rule.folds == artifact.header.recipe.folds == 2
    assert [sum(map(len, folds)) for folds in rule.scores] == [5, 4, 3]
    assert {role: rule.groups(role) for role in rule.role_scores} == {"ok": 5, "ng": 7}
    assert all(score >= 0 for folds in rule.scores for fold in folds for score in fold)
    assert rule.outliers is not None


def test_one_score_for_each_group(tune: Tune) -> None:
    images = [
        labelled(image.label, image.read(), group=f"part {image.label} {number // 2}")
        for number, image in enumerate(draw_images(4, 4, 4))
    ]
    rule = tune(images=images).header.rule
    assert rule is not None
    assert [sum(map(len, folds)) for folds in rule.scores] == [2, 2, 2]


def test_without_a_holdout_each_image_is_left_out(artifact: Artifact) -> None:
    trust = artifact.header.metrics.trust
    assert trust is not None
    assert (trust.basis, trust.n_images) == ("out-of-fold", 12)
    assert trust.pooled == [spec.name for spec in CLASSES]
    assert sum(trust.set_sizes) == sum(trust.reasons.values()) == 12
    assert sum(size * n for size, n in enumerate(trust.set_sizes)) / 12 == trust.mean_set_size
    assert trust.coverage.value >= 0.75
    assert sum(part.count for part in trust.before.bins) == 12
    assert trust.calibration_groups == {"ok": 5, "ng": 7}


def test_with_a_holdout_it_is_measured_there_and_calibrated_on_the_folds(
    tune: Tune, artifact: Artifact, images: list[LabelledImage]
) -> None:
    held = tune(images=[*images, *draw_images(5, 5, 5, split="holdout", first=200)])
    trust = held.header.metrics.trust
    assert trust is not None
    assert (trust.basis, trust.n_images) == ("holdout", 15)
    assert held.header.rule == artifact.header.rule


def test_an_interrupted_tuning_with_a_holdout_goes_on_to_the_same_rule(
    tune: Tune, images: list[LabelledImage]
) -> None:
    everything = [*images, *draw_images(5, 5, 5, split="holdout", first=200)]
    whole = tune(images=everything)

    class Stop(SilentObserver):
        kept: list[bytes]

        def on_checkpoint(self, checkpoint: Checkpoint) -> None:
            self.kept = [*getattr(self, "kept", []), checkpoint.to_bytes()]
            if len(self.kept) == 6:  # within the second fold
                raise Cancelled

    stop = Stop()
    with pytest.raises(Cancelled):
        tune(images=everything, observer=stop)
    again = tune(images=everything, checkpoint=Checkpoint.from_bytes(stop.kept[-1]))
    assert again.digest == whole.digest
    assert again.header.rule == whole.header.rule


def test_one_image_of_each_class_gives_no_rule(tune: Tune) -> None:
    held = draw_images(5, 5, 5, split="holdout", first=200)
    artifact = tune(images=[*draw_images(1, 1, 1), *held])
    assert (artifact.header.rule, artifact.header.metrics.trust) == (None, None)
    assert artifact.header.format_version == 1
    assert Artifact.from_bytes(artifact.to_bytes()).judge() is None


def test_one_image_in_a_class_is_pooled_with_the_others(tune: Tune, backbone: Backbone) -> None:
    held = draw_images(5, 5, 5, split="holdout", first=200)
    artifact = tune(images=[*draw_images(10, 10, 1), *held])
    trust = artifact.header.metrics.trust
    assert trust is not None
    assert trust.pooled == ["stain"]
    (made,) = Predictor(artifact, backbone).predict([held[-1].read()])
    assert made.probability > 0


def test_images_of_a_class_that_are_all_the_same(tune: Tune, backbone: Backbone) -> None:
    """Other bytes, the same pixels: nothing varies, nothing is divided by nothing."""
    same = noise_image(7, (99, 99, 99))
    kinds = [("PNG", {}), ("BMP", {}), ("PNG", {"compress_level": 1}), ("TIFF", {})]
    images = [labelled(0, encode(same, kind, **options)) for kind, options in kinds]
    images += list(draw_images(0, 4, 0))
    artifact = tune(CLASSES[:2], images)
    again = Artifact.from_bytes(artifact.to_bytes())
    assert again.header.rule == artifact.header.rule
    (made,) = Predictor(again, backbone).predict([encode(same, "PNG")])
    assert made.reason != "photograph_blurred"
    assert np.isfinite(made.probability)


def tuning(backbone: Backbone, recipe: Recipe, images: list[LabelledImage]) -> Tuning:
    store, view = MemoryFeatureStore(), View()
    return Tuning(CLASSES, images, backbone, recipe, seed=0, view=view, store=store)


def test_another_policy_measures_otherwise_and_gives_the_same_artifact(
    artifact: Artifact, backbone: Backbone, recipe: Recipe, images: list[LabelledImage]
) -> None:
    other = tuning(backbone, recipe, images)
    other.measure_by(DecisionPolicy(alpha=0.4))
    made = other.run()
    assert made.digest == artifact.digest
    assert made.header.metrics.trust is not None
    assert made.header.metrics.trust.alpha == 0.4


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (DecisionPolicy(budget=Budget(missed_ng=0.05)), r"7 images of role ng.* 0\.1250"),
        (DecisionPolicy.read({"review": 1, "costs": {"dent": {"miss": 2}}}), "'dent'"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused_before_anything_is_tuned(
    backbone: Backbone,
    recipe: Recipe,
    images: list[LabelledImage],
    policy: DecisionPolicy,
    problem: str,
) -> None:
    with pytest.raises(BadInput, match=problem):
        tuning(backbone, recipe, images).measure_by(policy)


def test_the_digest_of_an_artifact_without_a_rule_is_what_it_always_was(artifact: Artifact) -> None:
    header = artifact.header.model_copy(update={"rule": None, "format_version": 1})
    old = Artifact(header, artifact.tensors)
    known = ("format_version", "backbone_digest", "classes", "recipe", "seed", "view", "snapshot",
             "n_train", "logit_scale")  # fmt: skip
    values = header.model_dump(mode="json")
    hasher = hashlib.sha256(json.dumps({k: values[k] for k in known}, sort_keys=True).encode())
    for name in ("class_embeddings", "class_means", "ctx", "text_features", "zero_shot_features"):
        tensor = artifact.tensors[name]
        hasher.update(f"{name}{tensor.shape}torch.{tensor.dtype}".encode() + tensor.tobytes())
    assert old.digest == "sha256:" + hasher.hexdigest()
    assert set(old.tensors) == set(artifact.tensors) - {
        "fold_embeddings", "fold_scales", "photographs"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"fold_embeddings": lambda rows: rows[1:]}, "fold_embeddings is int8 of the shape"),
        ({"fold_embeddings": lambda rows: rows.astype(np.int16)}, "fold_embeddings is int16"),
        ({"fold_scales": lambda scales: scales[1:]}, "fold_scales is float32"),
        ({"photographs": lambda rows: rows[:, :3]}, "photographs is float16"),
    ],
)
def test_a_rule_and_its_tensors_must_fit(
    artifact: Artifact, change: dict[str, Callable[[Any], Any]], problem: str
) -> None:
    tensors = dict(artifact.tensors)
    for name, make in change.items():
        tensors[name] = make(tensors[name])
    with pytest.raises(DamagedArtifact, match=problem):
        Artifact.from_bytes(Artifact(artifact.header, tensors).to_bytes())


def test_the_rule_is_part_of_the_digest(artifact: Artifact) -> None:
    rule = artifact.header.rule
    assert rule is not None
    other = rule.model_copy(update={"temperature": rule.temperature * 2})
    header = artifact.header.model_copy(update={"rule": other})
    assert Artifact(header, artifact.tensors).digest != artifact.digest


def test_what_is_kept_of_the_folds_is_what_they_were_calibrated_with(artifact: Artifact) -> None:
    kept = artifact.fold_embeddings
    assert kept is not None
    again = Quantised.of(kept.rows * kept.scales[:, None])
    np.testing.assert_array_equal(again.rows, kept.rows)
    reduced = artifact.reduced()
    assert reduced is not None
    assert len(reduced.rows) == (2 + 1) * len(CLASSES)


def test_a_black_frame_is_no_defect(artifact: Artifact, backbone: Backbone) -> None:
    black = encode(noise_image(0, (0, 0, 0)).point(lambda level: level // 20))
    (made,) = Predictor(artifact, backbone).predict([black])
    assert (made.decision, made.reason) == ("undecidable", "photograph_dark")


def test_a_role_without_classes_has_no_scores(tune: Tune) -> None:
    classes = [class_spec(name, role="ng") for name in ("scratch", "stain", "dent")]
    rule = tune(classes).header.rule
    assert rule is not None
    assert set(rule.role_scores) == {"ng"}
