"""What another alpha would bring: how much is decided, and how much of that is right."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from models.classes import ClassSpec
from models.decision import Verdict, conclude
from models.evaluation.proportions import proportion
from models.trust.conformal import class_scores, too_few
from models.trust.evidence import Evidence
from models.trust.judge import Findings, Judge
from models.trust.metrics import AlphaPoint
from models.trust.policy import DecisionPolicy

ALPHAS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
# Images of a curve: each costs a third of a millisecond, and more would not be seen in it.
MOST_IN_CURVE: Final = 500


class Looked(NamedTuple):
    """An image, what was found of it, and by whom."""

    judge: Judge
    evidence: Evidence
    found: Findings


def verdicts(classes: Sequence[ClassSpec], looked: Looked, policy: DecisionPolicy) -> list[Verdict]:
    """Return what is concluded of an image with each of `ALPHAS`, all else as in `policy`.

    Only the p-values of classes follow alpha: which of them are compared with all scores.
    """
    logits, scores = looked.evidence.fold_logits, looked.judge.classes
    assert logits is not None  # noqa: S101 - a model with a rule has folds
    seen, counts = class_scores(logits), scores.counts
    alone, pooled = scores.p_values(seen), scores.p_values(seen, alpha=0.0)
    made: list[Verdict] = []
    for alpha in ALPHAS:
        p_values = np.where(too_few(counts, alpha), pooled, alone)
        found = looked.found._replace(p_values=p_values)
        other = policy.model_copy(update={"alpha": alpha})
        made.append(conclude(classes, found, other, top_k=1).decision)
    return made


def curve(
    classes: Sequence[ClassSpec], labels: Sequence[int], made: Sequence[Sequence[Verdict]]
) -> list[AlphaPoint]:
    """Return a point for each of `ALPHAS`.

    Args:
        classes: of the model.
        labels: of the images.
        made: what `verdicts` says of each.
    """
    points = []
    for place, alpha in enumerate(ALPHAS):
        right = [
            verdicts_of[place] == classes[label].role
            for label, verdicts_of in zip(labels, made, strict=True)
            if verdicts_of[place] != "undecidable"
        ]
        points.append(
            AlphaPoint(
                alpha=alpha,
                n_images=len(labels),
                decided=proportion(len(right), len(labels)),
                decided_accuracy=proportion(sum(right), len(right)) if right else None,
            )
        )
    return points
