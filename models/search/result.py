"""What a search for a recipe found, as values. No torch and no Optuna here."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

TrialState = Literal["queued", "running", "complete", "pruned", "failed", "stopped"]
Value = bool | int | float | str


class TrialRecord(BaseModel):
    """One recipe that was tried.

    Attributes:
        number: 0 for `auto`, then in the order in which they were drawn.
        state: `pruned` where it was behind after some folds, `stopped` where the time was up.
        params: the hyperparameters that are searched, by name.
        folds: macro accuracy of the images tested so far, after each fold.
        macro: macro accuracy out of fold; of all folds, so only where it is `complete`.
        log_loss: mean negative log-probability of the right class, every class with one weight.
        best_so_far: the largest `macro` of this trial and those that ended before it.
        seconds: that it took; of the last attempt.
        problem: why it failed.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    state: TrialState
    params: dict[str, Value]
    folds: list[float] = []
    macro: float | None = None
    log_loss: float | None = None
    best_so_far: float | None = None
    seconds: float | None = None
    problem: str | None = Field(
        None, examples=["The tuning diverged: the loss is nan after 9 steps."]
    )


class Importance(BaseModel):
    """How much of the spread between the trials a hyperparameter explains; all sum to 1."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(examples=["lr"])
    share: float


class Choice(BaseModel):
    """Which trial's recipe is taken, and why.

    Attributes:
        number: of the trial; 0 is `auto`.
        best: the trial that is best by the objective, which need not be the one taken.
        gain: macro accuracy of `best` less that of `auto`.
        standard_error: of that gain, paired by image, images of a group together.
        needed: a gain up to this is noise: as many standard errors as the best of so many trials
            reaches by chance, one at least.
        reason: the same in a sentence.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    best: int
    gain: float
    standard_error: float
    needed: float
    reason: str = Field(
        examples=["The best of 12 other recipes, trial 9, is as accurate as `auto`, which stays."]
    )


class SearchResult(BaseModel):
    """A search as it stands, or as it ended.

    Attributes:
        minutes: the budget.
        max_trials: the budget in trials, `None` without one.
        spent_seconds: of the budget in minutes.
        n_images: training images that each trial is cross-validated on; never the holdout.
        n_folds: of that cross-validation.
        fixed: hyperparameters that were not searched but given.
        trials: in the order of their numbers.
        best: number of the best trial so far, `None` before the first has ended.
        choice: what was taken; `None` while the search goes on.
        importance: of each hyperparameter, largest first; empty with too few trials to tell.
    """

    model_config = ConfigDict(frozen=True)

    minutes: float
    max_trials: int | None
    spent_seconds: float
    n_images: int
    n_folds: int
    fixed: dict[str, Value | None] = {}
    trials: list[TrialRecord]
    best: int | None = None
    choice: Choice | None = None
    importance: list[Importance] = []
