"""What a report is made of. No torch here: the gateway renders reports too."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import PIL.Image
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from models.artifact import Artifact, ArtifactHeader
from models.errors import ArtifactMismatch
from models.evaluation.results import Evaluation
from models.trust.metrics import TrustMetrics
from models.trust.policy import DEFAULT_POLICY, DecisionPolicy

THUMBNAIL_SIDE = 240
# Of one picture: a page of eight mistakes, each with its heat map, stays below half a megabyte.
MAX_PICTURE_BYTES = 20_000
_QUALITIES = (80, 65, 50, 35, 20)

_AS_BASE64 = ConfigDict(
    frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64"
)


class Heat(BaseModel):
    """Where in a photograph the evidence for a decision was, and whether the map can be believed.

    Attributes:
        picture: a small JPEG: the map laid over the photograph.
        way: how it was made, see `models.heatmaps.choose.WAYS`.
        hottest_first: area under the falling probability where the hottest parts go first.
        random: the same of random orders; lower is better.
    """

    model_config = _AS_BASE64

    picture: bytes
    way: str
    hottest_first: float
    random: tuple[float, ...]

    @property
    def chance(self) -> float:
        """The mean of the random orders."""
        return sum(self.random) / len(self.random)

    @property
    def better(self) -> bool:
        """Whether the map does better than chance."""
        return self.hottest_first < self.chance


class Mistake(BaseModel):
    """An image that was decided wrong.

    Attributes:
        name: what people call the image, such as its path.
        label: the name of the class that it was given.
        predicted: the name of the class that was predicted.
        probability: of the predicted class.
        thumbnail: a small JPEG; `None` where the photograph was not at hand.
        heat: what spoke for the predicted class, against the right one.
        sha256: hexadecimal, of the photograph's bytes.
    """

    model_config = _AS_BASE64

    name: str
    label: str
    predicted: str
    probability: float
    thumbnail: bytes | None = None
    heat: Heat | None = None
    sha256: str | None = None


def small_jpeg(image: PIL.Image.Image) -> bytes:
    """Return a JPEG of at most `THUMBNAIL_SIDE` pixels a side and `MAX_PICTURE_BYTES` bytes."""
    side = THUMBNAIL_SIDE
    while True:
        small = image.copy()
        small.thumbnail((side, side), PIL.Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=quality)
            if buffer.tell() <= MAX_PICTURE_BYTES:
                return buffer.getvalue()
        side //= 2


@dataclass(frozen=True)
class ReportData:
    """A tuned model, and what became known of it after it was made.

    Attributes:
        header: of the artifact.
        digest: of the artifact.
        text_features: of the tuned prompts; each of the three arrays is `(n_classes, embed_dim)`
            and L2-normalised.
        zero_shot_features: of the hand-written prompts.
        class_means: of the training images' features.
        test: an evaluation on images sent after the tuning; the report then speaks of it in place
            of the artifact's own.
        test_zero_shot: the backbone without tuning on the same images.
        mistakes: images that were decided wrong in the evaluation that the report speaks of.
        policy: what the project asks of decisions, with what wrong ones cost where it says so.
        seconds: wall time of phases outside the tuning, such as `upload`.
        prediction_ms: median time of a prediction, in milliseconds.
        title: what the page is called, such as the project's name.
        command: what reproduces the tuning, to the same digest; `None` where that is not known.

    Raises:
        ArtifactMismatch: an evaluation of another number of classes.
    """

    header: ArtifactHeader
    digest: str
    text_features: Float[np.ndarray, "n_classes embed_dim"]
    zero_shot_features: Float[np.ndarray, "n_classes embed_dim"]
    class_means: Float[np.ndarray, "n_classes embed_dim"]
    test: Evaluation | None = None
    test_zero_shot: Evaluation | None = None
    mistakes: Sequence[Mistake] = ()
    policy: DecisionPolicy = DEFAULT_POLICY
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
            text_features=artifact.tensors["text_features"],
            zero_shot_features=artifact.tensors["zero_shot_features"],
            class_means=artifact.tensors["class_means"],
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

    @property
    def linear_probe(self) -> Evaluation | None:
        """A linear probe on the same images, where that is known."""
        return None if self.test else self.header.metrics.linear_probe

    @property
    def trust(self) -> TrustMetrics | None:
        """How far its decisions can be trusted, where the report speaks of the same images."""
        return None if self.test else self.header.metrics.trust

    @property
    def wrong(self) -> list[Mistake]:
        """What is known of the mistakes, the surest first, pictured where they can be."""
        if self.mistakes or self.test:
            return sorted(self.mistakes, key=lambda one: one.probability, reverse=True)
        return [Mistake(**one.model_dump()) for one in self.header.metrics.wrong or ()]
