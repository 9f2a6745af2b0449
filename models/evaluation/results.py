"""What an evaluation says, as values. No torch here: artifacts are read without it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Basis = Literal["holdout", "out-of-fold"]


class Proportion(BaseModel):
    """A share with its 95 % interval.

    The interval holds the middle 95 % of the posterior under Jeffreys' prior, which covers well
    for few images and is never empty (Brown, Cai, DasGupta 2001).
    """

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class Evaluation(BaseModel):
    """How predictions compare with the labels.

    Attributes:
        basis: the images were a `holdout`, or predicted `out-of-fold`; never trained on.
        n_images: how many.
        top1: share of images predicted right.
        macro: mean of the classes' accuracies.
        per_class: accuracy of each class, in the order of the classes.
        confusion: counts, `confusion[true][predicted]`.
        ece: expected calibration error, 15 bins of equal width (Guo et al. 2017).
    """

    model_config = ConfigDict(frozen=True)

    basis: Basis
    n_images: int
    top1: Proportion
    macro: Proportion
    per_class: list[Proportion]
    confusion: list[list[int]]
    ece: float


class WrongImage(BaseModel):
    """An image that the tuned model decided wrong where its accuracy was measured.

    Attributes:
        sha256: hexadecimal, of its bytes.
        name: what people call it, such as its path.
        label: the name of the class that it was given.
        predicted: the name of the class that was predicted.
        probability: of the predicted class.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str
    name: str
    label: str
    predicted: str
    probability: float
