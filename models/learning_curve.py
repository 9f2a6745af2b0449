"""What more images would bring, as values. No torch here: `models.enough` computes them."""

from pydantic import BaseModel, ConfigDict, Field


class Estimate(BaseModel):
    """A number with the interval that holds it with 90 % confidence, by bootstrap over groups."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class CurvePoint(BaseModel):
    """The error of a class measured with so many images of it, and the same share of all others."""

    model_config = ConfigDict(frozen=True)

    images: float
    error: float


class PowerLaw(BaseModel):
    """`error = floor + scale * n ** -exponent`, n images of the class.

    The shape is that of the mean of all classes; the class has its own height on it.
    """

    model_config = ConfigDict(frozen=True)

    floor: float
    scale: float
    exponent: float


class ClassCurve(BaseModel):
    """What more images of one class would bring.

    Attributes:
        name: of the class.
        images: that there are for training.
        groups: of them; images of one part are one.
        points: measured by cross-validation on sub-samples of the class.
        fit: of the class's error; `None` where there are too few groups to sub-sample.
        accuracy_now: of the class, with the images that there are.
        accuracy_then: with `LearningCurve.more` images more of every class.
        gain: the difference, in shares (0.02 are two points).
        macro_gain: what this class adds to the gain of the mean of all classes' accuracies.
        sentence: all this in words.
    """

    model_config = ConfigDict(frozen=True)

    name: str = Field(examples=["scratch"])
    images: int
    groups: int
    points: list[CurvePoint] = []
    fit: PowerLaw | None = None
    accuracy_now: Estimate | None = None
    accuracy_then: Estimate | None = None
    gain: Estimate | None = None
    macro_gain: Estimate | None = None
    sentence: str = Field(
        examples=["'scratch': 16 images, about 82 % right; 10 more would hardly change that."]
    )


class LearningCurve(BaseModel):
    """What more images of each class would probably bring, and which class to photograph next.

    Attributes:
        more: how many images more are asked about.
        stand_in: the classifier that was measured, which is cheaper than a whole tuning.
        classes: in the order of the classes.
        next_class: the index of the class to photograph next.
        sentence: which one, and why.
    """

    model_config = ConfigDict(frozen=True)

    more: int
    stand_in: str = Field(examples=["the posterior classifier on hand-written texts"])
    classes: list[ClassCurve]
    next_class: int
    sentence: str = Field(examples=["Photograph 'scratch' next: it has fewer than 5 parts."])
