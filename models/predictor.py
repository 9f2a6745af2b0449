"""From image features to decisions. The text tower is never run here."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from models.artifact import Artifact
from models.backbone import IMAGE_BATCH, Backbone
from models.classes import ClassSpec
from models.errors import ArtifactMismatch
from models.pixels import check_decoder, to_pixels

Verdict = Literal["ok", "ng", "undecidable"]


class LabelProbability(BaseModel):
    """A class and how probable the model holds it."""

    model_config = ConfigDict(frozen=True)

    label: str
    probability: float


class Decision(BaseModel):
    """What a prediction answers.

    Attributes:
        decision: what the line may conclude; a class of role `other` gives `undecidable`.
        label: the most probable class.
        probability: of that class.
        probabilities: the most probable classes, highest first.
        prediction_set: the classes that the decision speaks of.
    """

    model_config = ConfigDict(frozen=True)

    decision: Verdict
    label: str
    probability: float
    probabilities: list[LabelProbability]
    prediction_set: list[str]


class Predictor:
    """A tuned model on its backbone.

    Raises:
        ArtifactMismatch: the artifact was tuned for another backbone.
        BadView: it was tuned with another version of the decoder.
    """

    def __init__(self, artifact: Artifact, backbone: Backbone) -> None:
        check_backbone(artifact, backbone)
        check_decoder(artifact.header.view)
        self.artifact = artifact
        self._backbone = backbone

    def predict(self, images: Sequence[bytes], *, top_k: int | None = None) -> list[Decision]:
        """Decide on photographs as they came from the camera.

        Raises:
            BadImage: one of them is not an image.
        """
        header, spec = self.artifact.header, self._backbone.pixels
        if not images:
            return []
        pixels = [to_pixels(data, header.view, spec.size, spec.interpolation) for data in images]
        batches = torch.stack(pixels).split(IMAGE_BATCH)
        features = torch.cat([self._backbone.encode_batch(batch) for batch in batches])
        probabilities = class_probabilities(
            features, self.artifact.class_embeddings, header.logit_scale
        )
        return [decide(header.classes, row, top_k=top_k) for row in probabilities]


def check_backbone(artifact: Artifact, backbone: Backbone) -> None:
    """Refuse an artifact on a backbone that it was not tuned for.

    Raises:
        ArtifactMismatch: the backbones' digests differ.
    """
    wanted = artifact.header.backbone_digest
    if wanted != backbone.digest:
        raise ArtifactMismatch(
            f"The artifact was tuned for the backbone {artifact.header.backbone!r}"
            f" ({wanted[:19]}…); this is {backbone.source!r} ({backbone.digest[:19]}…).",
            fix="Load the backbone that it was tuned for with --backbone, or tune again.",
            field="backbone",
        )


def class_probabilities(
    features: Float[Tensor, "n dim"], embeddings: Float[Tensor, "n_classes dim"], logit_scale: float
) -> Float[Tensor, "n n_classes"]:
    """Return the softmax of the scaled cosines."""
    return (logit_scale * features @ embeddings.T).softmax(dim=-1)


def decide(
    classes: Sequence[ClassSpec],
    probabilities: Float[Tensor, " n_classes"],
    *,
    top_k: int | None = None,
) -> Decision:
    """Turn the probabilities of an image into what the line may conclude."""
    order = probabilities.argsort(descending=True, stable=True).tolist()
    best = classes[order[0]]
    return Decision(
        decision="undecidable" if best.role == "other" else best.role,
        label=best.name,
        probability=float(probabilities[order[0]]),
        probabilities=[
            LabelProbability(label=classes[index].name, probability=float(probabilities[index]))
            for index in order[:top_k]
        ],
        prediction_set=[best.name],
    )
