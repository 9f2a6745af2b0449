"""The order of the review queue: most informative first.

    score = (1 - margin) + 1 [feedback says otherwise] + 1 [the candidate says otherwise]
            + 1/2 [undecidable] + 1/2 [drifting]

divided by one more than how many images of the same part come before it: another picture of a part
that is looked at anyway teaches little (Settles 2009, sections 3.1, 3.2 and 5.1: margin sampling,
query by committee, density). `margin` is the distance of the two highest probabilities.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from app.core.tables import PredictionRecord
from app.feedback.repository import Waiting

Reason = Literal["feedback", "disagreeing", "undecidable", "drifting"]

_WEIGHTS: dict[Reason, float] = {
    "feedback": 1.0,
    "disagreeing": 1.0,
    "undecidable": 0.5,
    "drifting": 0.5,
}


class Ranked(NamedTuple):
    """A prediction in the queue.

    Attributes:
        reasons: why it is there.
        score: how much is to be learnt from it.
    """

    waiting: Waiting
    reasons: list[Reason]
    score: float


def rank(queue: Sequence[Waiting], low_probability: float) -> list[Ranked]:
    """Return the queue, most informative first; of equals the later one.

    Args:
        queue: the latest first.
        low_probability: what is less sure is drifting.
    """
    scored = [_score(entry, low_probability) for entry in queue]
    scored.sort(key=lambda entry: -entry.score)
    before: Counter[str] = Counter()
    found = []
    for entry in scored:
        part = entry.waiting.prediction.part_id
        share = 1 + before[part] if part is not None else 1
        if part is not None:
            before[part] += 1
        found.append(entry._replace(score=round(entry.score / share, 6)))
    return sorted(found, key=lambda entry: -entry.score)


def _score(entry: Waiting, low_probability: float) -> Ranked:
    made = entry.prediction
    holds: dict[Reason, bool] = {
        "feedback": entry.feedback is not None and entry.feedback != made.label,
        "disagreeing": entry.candidate is not None and entry.candidate.differs,
        "undecidable": made.decision == "undecidable",
        "drifting": made.probability < low_probability,
    }
    reasons = [reason for reason, there in holds.items() if there]
    return Ranked(entry, reasons, 1 - margin(made) + sum(_WEIGHTS[reason] for reason in reasons))


def margin(made: PredictionRecord) -> float:
    """Return how far the two highest probabilities are apart; of one class alone, its own.

    Where the caller asked for one class only, what is left counts as the second.
    """
    shares = sorted((float(entry["probability"]) for entry in made.probabilities), reverse=True)
    first = shares[0] if shares else made.probability
    second = shares[1] if len(shares) > 1 else min(first, 1 - first)
    return max(0.0, first - second)
