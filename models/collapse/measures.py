"""What the measures of neural collapse are called, mean, and are at full collapse.

Here without torch, for tables and pages; `models.collapse.metrics` computes them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


class CollapseMetrics(BaseModel):
    """The distance from collapse.

    At full collapse `nc4` is 1, `text_cosine` is `-1/(K-1)`, and every other value is 0.
    Image-side values (`nc1`, `cdnv`, `image_nc2`) cannot move when only text is tuned.

    Attributes:
        text_nc2: distance of the text features from a simplex ETF.
        image_nc2: the same of the image class means.
        text_to_image_nc3: the same of the text-to-image products.
        nc1: within-class over between-class variability of the image features.
        cdnv: class-distance normalised variance of the image features.
        nc4: share of images on which the text features and the nearest class mean agree. Of the
            text alone: what an artifact answers with leans on the class means, and would agree for
            that reason.
        text_equinorm: spread (standard deviation over mean) of the centred text features' lengths.
        text_equiangularity: standard deviation of their pairwise cosines.
        text_cosine: mean raw cosine between two text features; the ETF has `-1/(K-1)`.
        lc: the regulariser LC in its Gram form.
        mi: the regulariser MI in its point form.
    """

    model_config = ConfigDict(frozen=True)

    text_nc2: float
    image_nc2: float
    text_to_image_nc3: float
    nc1: float
    cdnv: float
    nc4: float
    text_equinorm: float
    text_equiangularity: float
    text_cosine: float
    lc: float
    mi: float


class Measure(NamedTuple):
    """A measure in the words of tables and pages.

    Attributes:
        key: the field of `CollapseMetrics`.
        name: what people call it.
        meaning: what it says, in a sentence.
        fixed_for_two: zero, or one of two values, whatever two classes are: says nothing there.
    """

    key: str
    name: str
    meaning: str
    fixed_for_two: bool = False

    def ideal(self, n_classes: int) -> float:
        """Return its value at full collapse; raw cosines are then those of a simplex ETF."""
        return {"nc4": 1.0, "text_cosine": -1.0 / (n_classes - 1)}.get(self.key, 0.0)


# Of the text features, which tuning can move.
TEXT_SIDE = (
    Measure(
        "text_nc2",
        "NC2, text",
        "Distance of the centred text features from the ideal frame, in which every class stands"
        " equally far from every other.",
        fixed_for_two=True,
    ),
    Measure(
        "text_to_image_nc3",
        "NC3, text to image",
        "The same distance for text features against image class means: do the prompts stand where"
        " the photographs stand?",
        fixed_for_two=True,
    ),
    Measure(
        "text_equinorm",
        "Equinorm spread",
        "How unequal the lengths of the centred text features are.",
        fixed_for_two=True,
    ),
    Measure(
        "text_equiangularity",
        "Equiangularity spread",
        "How unequal the angles between the centred text features are.",
        fixed_for_two=True,
    ),
    Measure(
        "text_cosine",
        "Mean text cosine",
        "Raw cosine between two classes' text features; the lower, the further apart the prompts"
        " stand.",
    ),
    Measure(
        "lc",
        "LC, Gram form",
        "Mean squared distance of those raw cosines from the ideal: what the regulariser LC pulls"
        " to 0.",
    ),
    Measure(
        "mi",
        "MI, point form",
        "Mean squared distance of each text feature from its class's mean image feature: what the"
        " regulariser MI pulls to 0.",
    ),
    Measure(
        "nc4",
        "NC4",
        "Share of the training photographs on which the prompts and the nearest class mean agree.",
    ),
)
# Of the image features, which it cannot.
IMAGE_SIDE = (
    Measure(
        "nc1",
        "NC1",
        "Spread inside the classes over the spread between them: the smaller, the easier the"
        " photographs are to tell apart.",
    ),
    Measure(
        "cdnv",
        "CDNV",
        "The same for pairs of classes, averaged; a pair that lies close together raises it.",
    ),
    Measure(
        "image_nc2",
        "NC2, images",
        "Distance of the centred image class means from the ideal frame.",
        fixed_for_two=True,
    ),
)


def told(measures: Sequence[Measure], n_classes: int) -> list[Measure]:
    """Return those of the measures that say something of so many classes."""
    return [measure for measure in measures if n_classes > 2 or not measure.fixed_for_two]
