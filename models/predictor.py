"""A tuned model on its backbone, in this process."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from models.artifact import Artifact
from models.backbone import IMAGE_BATCH, Backbone
from models.decision import Decision, decide
from models.errors import ArtifactMismatch
from models.pixels import check_decoder, to_pixels
from models.trust.evidence import Evidence, read_evidence
from models.trust.photograph import photograph_statistics
from models.trust.policy import DEFAULT_POLICY, DecisionPolicy


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
        self._judge, self._reduced = artifact.judge(), artifact.reduced()

    def predict(
        self,
        images: Sequence[bytes],
        *,
        top_k: int | None = None,
        policy: DecisionPolicy = DEFAULT_POLICY,
    ) -> list[Decision]:
        """Decide on photographs as they came from the camera.

        Args:
            images: their bytes.
            top_k: so many classes are listed; None for all.
            policy: what is asked of decisions.

        Raises:
            BadImage: one of them is not an image.
        """
        header, spec = self.artifact.header, self._backbone.pixels
        if not images:
            return []
        pixels = [to_pixels(data, header.view, spec.size, spec.interpolation) for data in images]
        batches = torch.from_numpy(np.stack(pixels)).split(IMAGE_BATCH)
        features = torch.cat([self._backbone.encode_batch(batch) for batch in batches])
        return [
            decide(
                header.classes,
                evidence,
                judge=self._judge,
                policy=policy,
                photograph=photograph_statistics(image),
                top_k=top_k,
            )
            for evidence, image in zip(self._evidence(features.numpy()), pixels, strict=True)
        ]

    def _evidence(self, features: Float[np.ndarray, "n dim"]) -> list[Evidence]:
        scale = self.artifact.header.logit_scale
        logits = scale * (features @ self.artifact.class_embeddings.T)
        if self._reduced is None:
            return [Evidence(row) for row in logits]
        products = self._reduced.products(features)
        return [read_evidence(row, rest, scale) for row, rest in zip(logits, products, strict=True)]


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
