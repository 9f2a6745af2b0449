"""From features to decisions: what the line may conclude."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.artifact import Artifact
from models.backbone import Backbone
from models.classes import class_spec
from models.decision import class_probabilities, decide
from models.errors import ArtifactMismatch, BadImage, BadView
from models.features import MemoryFeatureStore, image_features
from models.imaging import View
from models.pixels import to_pixels
from models.predictor import Predictor
from models.trust.evidence import Evidence
from tests.unit.models.conftest import draw_images

CLASSES = [class_spec("good"), class_spec("scratch"), class_spec("unclear", role="other")]


@pytest.mark.parametrize(
    ("probabilities", "decision", "label"),
    [
        ([0.7, 0.2, 0.1], "ok", "good"),
        ([0.2, 0.7, 0.1], "ng", "scratch"),
        ([0.1, 0.2, 0.7], "undecidable", "unclear"),
        ([0.4, 0.4, 0.2], "ok", "good"),  # of equals, the first
    ],
)
def test_the_role_of_the_most_probable_class_decides(
    probabilities: list[float], decision: str, label: str
) -> None:
    made = decide(CLASSES, Evidence(np.log(probabilities)))

    assert (made.decision, made.label) == (decision, label)
    assert made.probability == pytest.approx(max(probabilities))
    assert made.prediction_set == [label]
    assert made.reason == ("role_other" if decision == "undecidable" else "most_probable")


@pytest.mark.parametrize(("top_k", "labels"), [(None, 3), (1, 1), (2, 2), (9, 3)])
def test_the_most_probable_classes_come_first(top_k: int | None, labels: int) -> None:
    made = decide(CLASSES, Evidence(np.log([0.2, 0.7, 0.1])), top_k=top_k)

    order = ["scratch", "good", "unclear"][:labels]
    assert [entry.label for entry in made.probabilities] == order
    assert [entry.probability for entry in made.probabilities] == pytest.approx(
        [0.7, 0.2, 0.1][:labels]
    )


def test_probabilities_by_hand() -> None:
    features, embeddings = np.array([[1.0, 0.0]]), np.eye(2)

    probability = math.exp(2) / (math.exp(2) + 1)
    expected = np.array([[probability, 1 - probability]])
    np.testing.assert_allclose(class_probabilities(features, embeddings, 2.0), expected)


def test_decisions_are_those_of_the_cached_features(
    artifact: Artifact, backbone: Backbone, store: MemoryFeatureStore
) -> None:
    images = draw_images(3, 3, 3, first=100)
    features = image_features(images, backbone, View(), store)
    assert artifact.header.rule is not None
    scale = artifact.header.logit_scale / artifact.header.rule.temperature
    probabilities = class_probabilities(features.numpy(), artifact.class_embeddings, scale)
    made = Predictor(artifact, backbone).predict([image.read() for image in images])

    assert [decision.probabilities[0].label for decision in made] == [
        artifact.header.classes[index].name for index in probabilities.argmax(axis=1).tolist()
    ]
    assert [decision.probabilities[0].probability for decision in made] == pytest.approx(
        probabilities.max(axis=1).tolist(), abs=1e-5
    )


def test_batched_is_single(artifact: Artifact, backbone: Backbone) -> None:
    predictor = Predictor(artifact, backbone)
    images = [image.read() for image in draw_images(7, 7, 7, first=100)]

    together = predictor.predict(images)
    for image, decision in zip(images, together, strict=True):
        (alone,) = predictor.predict([image])
        assert (alone.label, alone.decision) == (decision.label, decision.decision)
        assert alone.probability == pytest.approx(decision.probability, abs=1e-5)
        assert sum(entry.probability for entry in alone.probabilities) == pytest.approx(1)


def test_top_k_is_passed_on(artifact: Artifact, backbone: Backbone) -> None:
    image = draw_images(1, 0, 0)[0].read()

    (decision,) = Predictor(artifact, backbone).predict([image], top_k=2)
    assert len(decision.probabilities) == 2
    assert decision.probabilities[0].label == decision.label


def test_no_images_no_decisions(artifact: Artifact, backbone: Backbone) -> None:
    assert Predictor(artifact, backbone).predict([]) == []


def test_a_stored_artifact_decides_as_the_one_that_was_tuned(
    artifact: Artifact, backbone: Backbone
) -> None:
    again = Artifact.from_bytes(artifact.to_bytes())
    images = [image.read() for image in draw_images(2, 2, 2, first=50)]

    assert Predictor(again, backbone).predict(images) == Predictor(artifact, backbone).predict(
        images
    )


def test_the_artifacts_view_is_applied(
    tune: Callable[..., Artifact], backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, seen = View(roi=(0, 0, 0.5, 1), resize="crop"), []
    predictor = Predictor(tune(view=view), backbone)
    encode = backbone.encode_batch

    def keep(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return encode(pixels)

    monkeypatch.setattr(backbone, "encode_batch", keep)
    image = draw_images(1, 0, 0)[0]
    predictor.predict([image.read()])
    np.testing.assert_array_equal(seen[0][0].numpy(), to_pixels(image.read(), view, 32))


def test_another_backbone_is_refused(artifact: Artifact, other_backbone: Backbone) -> None:
    with pytest.raises(ArtifactMismatch, match="tuned for the backbone 'tiny'") as caught:
        Predictor(artifact, other_backbone)
    assert "this is 'other'" in caught.value.problem
    assert artifact.header.backbone_digest[:19] in caught.value.problem
    assert caught.value.field == "backbone"
    assert "--backbone" in caught.value.fix


def test_another_decoder_is_refused_before_any_image(
    artifact: Artifact, backbone: Backbone
) -> None:
    view = View(decoder="pillow/99")
    other = Artifact(artifact.header.model_copy(update={"view": view}), artifact.tensors)

    with pytest.raises(BadView, match="'pillow/99'"):
        Predictor(other, backbone)


def test_bytes_that_are_no_image_are_refused(
    artifact: Artifact, backbone: Backbone, tmp_path: Path
) -> None:
    images = [draw_images(1, 0, 0)[0].read(), b"no image"]

    with pytest.raises(BadImage, match="not an image"):
        Predictor(artifact, backbone).predict(images)
