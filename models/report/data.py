"""What a report is made of."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import PIL.Image
import torch
from jaxtyping import Float
from torch import Tensor

from models.artifact import Artifact, ArtifactHeader
from models.errors import ArtifactMismatch
from models.evaluation.results import Evaluation
from models.imaging import decode

_THUMBNAIL_SIDE = 240


@dataclass(frozen=True)
class Mistake:
    """An image that was decided wrong.

    Attributes:
        name: what people call the image, such as its path.
        label: the name of the class that it was given.
        predicted: the name of the class that was predicted.
        probability: of the predicted class.
        thumbnail: a small JPEG.
    """

    name: str
    label: str
    predicted: str
    probability: float
    thumbnail: bytes

    @classmethod
    def from_photograph(
        cls, data: bytes, *, name: str, label: str, predicted: str, probability: float
    ) -> "Mistake":
        """Make the thumbnail of a photograph as it came from the camera, whole, at most 240 px.

        Raises:
            BadImage: not an image.
        """
        image = decode(data)
        image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), PIL.Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        return cls(name, label, predicted, probability, buffer.getvalue())


@dataclass(frozen=True)
class ReportData:
    """A tuned model, and what became known of it after it was made.

    Attributes:
        header: of the artifact.
        digest: of the artifact.
        text_features: of the tuned prompts; each of the three tensors is `(n_classes, embed_dim)`
            and L2-normalised.
        zero_shot_features: of the hand-written prompts.
        class_means: of the training images' features.
        test: an evaluation on images sent after the tuning; the report then speaks of it in place
            of the artifact's own.
        test_zero_shot: the backbone without tuning on the same images.
        mistakes: images that were decided wrong in the evaluation that the report speaks of.
        seconds: wall time of phases outside the tuning, such as `upload`.
        prediction_ms: median time of a prediction, in milliseconds.
        title: what the page is called, such as the project's name.
        command: what reproduces the tuning, to the same digest; `None` where that is not known.

    Raises:
        ArtifactMismatch: an evaluation of another number of classes.
    """

    header: ArtifactHeader
    digest: str
    text_features: Float[Tensor, "n_classes embed_dim"]
    zero_shot_features: Float[Tensor, "n_classes embed_dim"]
    class_means: Float[Tensor, "n_classes embed_dim"]
    test: Evaluation | None = None
    test_zero_shot: Evaluation | None = None
    mistakes: Sequence[Mistake] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    prediction_ms: float | None = None
    title: str | None = None
    command: str | None = None

    def __post_init__(self) -> None:
        for evaluation in (self.test, self.test_zero_shot):
            if evaluation is not None and len(evaluation.per_class) != self.n_classes:
                raise ArtifactMismatch(
                    f"The test is of {len(evaluation.per_class)} classes;"
                    f" the model has {self.n_classes}.",
                    fix="Test the model on images of the classes that it was tuned for.",
                    field="test",
                )

    @classmethod
    def from_artifact(
        cls,
        artifact: Artifact,
        *,
        test: Evaluation | None = None,
        test_zero_shot: Evaluation | None = None,
        mistakes: Sequence[Mistake] = (),
        seconds: Mapping[str, float] | None = None,
        prediction_ms: float | None = None,
        title: str | None = None,
        command: str | None = None,
    ) -> "ReportData":
        """Take header and tensors from an artifact; see the attributes for the rest."""
        return cls(
            header=artifact.header,
            digest=artifact.digest,
            text_features=_tensor(artifact, "text_features"),
            zero_shot_features=_tensor(artifact, "zero_shot_features"),
            class_means=_tensor(artifact, "class_means"),
            test=test,
            test_zero_shot=test_zero_shot,
            mistakes=tuple(mistakes),
            seconds=dict(seconds or {}),
            prediction_ms=prediction_ms,
            title=title,
            command=command,
        )

    @property
    def n_classes(self) -> int:
        """How many classes the model tells apart."""
        return len(self.header.classes)

    @property
    def names(self) -> list[str]:
        """The classes' names, in order."""
        return [spec.name for spec in self.header.classes]

    @property
    def tuned(self) -> Evaluation:
        """The evaluation that the report speaks of."""
        return self.test or self.header.metrics.tuned

    @property
    def zero_shot(self) -> Evaluation | None:
        """The backbone without tuning on the same images, where that is known."""
        return self.test_zero_shot if self.test else self.header.metrics.zero_shot


def _tensor(artifact: Artifact, name: str) -> Float[Tensor, "n_classes embed_dim"]:
    return torch.tensor(artifact.tensors[name])
