"""How far a tuned model's decisions can be trusted, as values. No torch here."""

from pydantic import BaseModel, ConfigDict

from models.classes import Role
from models.evaluation.results import Basis, Proportion
from models.trust.reasons import Reason


class ReliabilityBin(BaseModel):
    """The images whose most probable class was given a probability within a range.

    Attributes:
        low: the range's lower end, included.
        high: its upper end; 1 is included.
        count: how many images.
        confidence: their mean probability; 0 where there are none.
        accuracy: the share whose most probable class is right; 0 where there are none.
    """

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


class Calibration(BaseModel):
    """Whether probabilities mean what they say.

    Attributes:
        ece: expected calibration error, 15 bins of equal width (Guo et al. 2017).
        bins: for the reliability plot, 10 of equal width, lowest first.
    """

    model_config = ConfigDict(frozen=True)

    ece: float
    bins: list[ReliabilityBin]


class AlphaPoint(BaseModel):
    """What decisions would be with another alpha, all else as it is.

    Attributes:
        alpha: the share of images whose set may miss the true class.
        n_images: how many images it is measured on.
        decided: share of them that would be called ok or ng.
        decided_accuracy: share of those whose true class has that role; None where none would be.
    """

    model_config = ConfigDict(frozen=True)

    alpha: float
    n_images: int
    decided: Proportion
    decided_accuracy: Proportion | None


class TrustMetrics(BaseModel):
    """What is known of a version's decisions, by the default policy.

    Attributes:
        basis: `holdout`: on images that neither trained nor calibrated. `out-of-fold`: each
            training image by the models of the folds that did not see it, calibrated on all the
            others; the coverage is then what was asked for by construction, up to whole images,
            while sizes and shares of the sets are estimates.
        n_images: how many images it is measured on.
        temperature: that logits are divided by.
        before: calibration without it.
        after: calibration with it; out-of-fold: with one that was fit without the image's fold.
        alpha: the share of images whose set may miss the true class.
        coverage: share of images whose prediction set holds the true class.
        per_class_coverage: the same of each class, in the order of the classes; None where there is
            no image of it.
        pooled: names of the classes with too few images for a threshold of their own.
        mean_set_size: classes in a prediction set.
        set_sizes: how many images have a set of 0, 1, 2, ... classes.
        decided: share of images that were called ok or ng.
        decided_accuracy: share of those whose true class has that role; None where none was.
        unlike: share of images that were taken for unlike the training images, photographs too
            dark, bright or blurred among them.
        reasons: how many images were decided, or not, for each reason.
        calibration_groups: of each role, how many groups of images calibrated it: a budget for it
            is at least one in so many and one.
        curve: the same decisions with other alphas, the smallest first, on the same images or some
            of them; empty in versions that were tuned before it was measured.
    """

    model_config = ConfigDict(frozen=True)

    basis: Basis
    n_images: int
    temperature: float
    before: Calibration
    after: Calibration
    alpha: float
    coverage: Proportion
    per_class_coverage: list[Proportion | None]
    pooled: list[str]
    mean_set_size: float
    set_sizes: list[int]
    decided: Proportion
    decided_accuracy: Proportion | None
    unlike: Proportion
    reasons: dict[Reason, int]
    calibration_groups: dict[Role, int]
    curve: list[AlphaPoint] = []
