"""A tuned model on its backbone, in this process."""

from collections.abc import Sequence

import numpy as np
import torch

from models.artifact import Artifact
from models.backbone import IMAGE_BATCH, Backbone
from models.decision import Decision, class_probabilities, decide
from models.errors import ArtifactMismatch
from models.pixels import check_decoder, to_pixels


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
        batches = torch.from_numpy(np.stack(pixels)).split(IMAGE_BATCH)
        features = torch.cat([self._backbone.encode_batch(batch) for batch in batches])
        probabilities = class_probabilities(
            features.numpy(), self.artifact.class_embeddings, header.logit_scale
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
