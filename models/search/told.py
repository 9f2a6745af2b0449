"""A search as it is told to people: the curve of the best so far, importance, the choice."""

from collections.abc import Sequence

from models.search.budget import SearchBudget
from models.search.choice import best_trial
from models.search.result import Choice, SearchResult, TrialRecord
from models.search.space import space_of


def told(
    budget: SearchBudget,
    trials: Sequence[TrialRecord],
    *,
    spent_seconds: float,
    n_images: int,
    n_folds: int,
    choice: Choice | None = None,
    with_importance: bool = False,
) -> SearchResult:
    """Return a search as it stands.

    Args:
        budget: of the search.
        trials: in the order of their numbers.
        spent_seconds: of the budget.
        n_images: that each trial is cross-validated on.
        n_folds: of that.
        choice: what was taken, once the search is over.
        with_importance: whether to weigh hyperparameters, for which Optuna is imported.
    """
    importance = []
    if with_importance:
        from models.search.study import importance as weigh  # noqa: PLC0415 - slow to import

        importance = weigh(space_of(budget.fixed), trials)
    return SearchResult(
        minutes=budget.minutes,
        max_trials=budget.trials,
        spent_seconds=round(spent_seconds, 1),
        n_images=n_images,
        n_folds=n_folds,
        fixed=budget.fixed,
        trials=_with_best(trials),
        best=best_trial(trials),
        choice=choice,
        importance=importance,
    )


def _with_best(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    best: float | None = None
    shown = []
    for trial in trials:
        if trial.macro is not None:
            best = trial.macro if best is None else max(best, trial.macro)
        shown.append(trial.model_copy(update={"best_so_far": best}))
    return shown
