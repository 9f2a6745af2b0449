"""Which recipe a search takes: `auto`, unless another one is better than noise could make it."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np

from models.search.result import Choice, TrialRecord

AUTO = 0
# So little does the log-loss weigh in the objective that it only decides between equals.
_TIE = 1e-3


def objective(macro: float, log_loss: float) -> float:
    """Return what is searched for the largest of: macro accuracy; between equals the log-loss."""
    return macro - _TIE * log_loss / (1 + log_loss)


def best_trial(trials: Sequence[TrialRecord]) -> int | None:
    """Return the number of the complete trial that is best: accuracy, then log-loss, then first."""
    complete = [trial for trial in trials if trial.macro is not None]
    if not complete:
        return None
    return max(complete, key=lambda it: (it.macro, -(it.log_loss or 0.0), -it.number)).number


def choose(
    trials: Sequence[TrialRecord],
    right: Mapping[int, Sequence[bool]],
    labels: Sequence[int],
    groups: Sequence[str],
) -> Choice:
    """Take the best trial where it beats `auto` by more than chance gives the best of so many.

    The gain is paired: only the images on which the two differ count. Its standard error is that of
    two recipes between which nothing but chance decides, by group (McNemar's, weighted by class).
    One standard error is asked for at least; the largest of T such gains is expected at `E_T` of
    them, which is asked for where that is more (Blom 1958).

    Args:
        trials: all of the search; number 0, `auto`, is complete.
        right: of each complete trial: whether each image was predicted right.
        labels: of the images.
        groups: of the images.
    """
    best = best_trial(trials)
    assert best is not None  # noqa: S101 - `auto` is complete
    rivals = sum(trial.number != AUTO and bool(trial.folds) for trial in trials)
    gain, error = paired_gain(right[best], right[AUTO], labels, groups)
    needed = error * max(1.0, _expected_largest(rivals))
    taken = best if gain > needed else AUTO
    reason = _reason(best, gain, needed, rivals)
    return Choice(
        number=taken, best=best, gain=gain, standard_error=error, needed=needed, reason=reason
    )


def paired_gain(
    new: Sequence[bool], old: Sequence[bool], labels: Sequence[int], groups: Sequence[str]
) -> tuple[float, float]:
    """Return the difference of two macro accuracies, and its standard error by chance alone."""
    difference = np.asarray(new, dtype=float) - np.asarray(old, dtype=float)
    classes, index = np.unique(np.asarray(labels), return_inverse=True)
    share = difference / np.bincount(index)[index] / len(classes)
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    return float(share.sum()), float(np.sqrt(np.square(np.bincount(member, share)).sum()))


def _expected_largest(count: int) -> float:
    """Return about how large the largest of `count` standard normal numbers is."""
    return 0.0 if count < 1 else NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def _reason(best: int, gain: float, needed: float, rivals: int) -> str:
    tried = f"{rivals} other recipe{'s' * (rivals != 1)}"
    if best == AUTO:
        return f"Of {tried} none was better than `auto` on the training images, out of fold."
    points, bar = 100 * gain, 100 * needed
    if math.isclose(gain, 0, abs_tol=1e-12):
        return f"The best of {tried}, trial {best}, is as accurate as `auto`, which stays."
    said = (
        f"The best of {tried}, trial {best}, is {points:.1f} points of macro accuracy above `auto`"
        f" on the training images, out of fold; up to {bar:.1f} the best of so many is by chance"
    )
    return f"{said}, so {'it is taken' if gain > needed else '`auto` stays'}."
