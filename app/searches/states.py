"""A search as its rows have it: what the tuning's row says of it, and what each trial's does."""

from collections.abc import Sequence
from typing import Any, TypedDict, cast
from uuid import UUID

from sqlalchemy.orm import Session

from app.core.jobs import TRIALS, Failure, Lease
from app.core.tables import SearchTrial, Tuning
from app.searches import repository
from models.search.budget import SearchBudget
from models.search.choice import best_trial
from models.search.result import (
    Choice,
    Importance,
    SearchResult,
    TrialRecord,
    TrialState,
)
from models.search.told import told

_SHOWN_STATES: dict[str, TrialState] = {
    "queued": "queued",
    "running": "running",
    "failed": "failed",
    "cancelled": "stopped",
}
_CANCELLED = Failure(problem="The search ended.", fix="Start another tuning.")


class Search(TypedDict):
    """What a tuning's row says of its search, as JSON.

    Attributes:
        budget: `models.search.budget.SearchBudget`.
        spent_seconds: of the budget in minutes, all attempts together.
        n_images, n_folds: what each trial is cross-validated on; 0 until that is known.
        choice: `models.search.result.Choice`, once the search is over.
        importance: of each hyperparameter, likewise.
    """

    budget: dict[str, Any]
    spent_seconds: float
    n_images: int
    n_folds: int
    choice: dict[str, Any] | None
    importance: list[dict[str, Any]]


def new_search(budget: SearchBudget) -> Search:
    """Return a search that nobody has begun with."""
    return Search(
        budget=budget.model_dump(mode="json"),
        spent_seconds=0.0,
        n_images=0,
        n_folds=0,
        choice=None,
        importance=[],
    )


def search_of(tuning: Tuning) -> Search | None:
    """Return the search of a tuning, where it has one."""
    return None if tuning.search is None else cast("Search", tuning.search)


def record_of(trial: SearchTrial) -> TrialRecord:
    """Return a trial as it is told."""
    result = trial.result or {}
    shown = {"number": trial.number, "params": trial.params, "folds": trial.folds, **result}
    if trial.state != "succeeded":
        stopped = trial.state == "running" and trial.cancel_requested
        shown["state"] = "stopped" if stopped else _SHOWN_STATES[trial.state]
    if trial.failure is not None:
        shown["problem"] = trial.failure["problem"]
    return TrialRecord.model_validate(shown)


def result_of(search: Search, trials: Sequence[SearchTrial]) -> SearchResult:
    """Return a search as it is told."""
    choice = search["choice"]
    shown = told(
        SearchBudget.model_validate(search["budget"]),
        [record_of(trial) for trial in trials],
        spent_seconds=search["spent_seconds"],
        n_images=search["n_images"],
        n_folds=search["n_folds"],
        choice=None if choice is None else Choice.model_validate(choice),
    )
    importance = [Importance.model_validate(entry) for entry in search["importance"]]
    return shown.model_copy(update={"importance": importance})


def progress_of(search: Search, trials: Sequence[SearchTrial]) -> dict[str, Any]:
    """Return the progress of a tuning that searches: seconds of the budget, and the best so far."""
    records = [record_of(trial) for trial in trials]
    total = 60 * SearchBudget.model_validate(search["budget"]).minutes
    spent = min(search["spent_seconds"], total)
    number = best_trial(records)
    best = None if number is None else next(it for it in records if it.number == number)
    states = [record.state for record in records]
    return {
        "phase": "search",
        "done": int(spent),
        "total": max(1, round(total)),
        "seconds_left": round(total - spent, 1),
        "search": {
            "trials": len(records),
            "running": states.count("running"),
            "pruned": states.count("pruned"),
            "best": None if best is None else best.number,
            "best_macro": None if best is None else best.macro,
            "auto_macro": records[0].macro if records else None,
        },
    }


def lead_owner(tuning_id: UUID) -> str:
    """Return who holds the lease of a trial that the tuning's own worker does itself."""
    return f"tuning {tuning_id}"


def cancel_open(session: Session, tuning_id: UUID, *, but: UUID | None = None) -> None:
    """Cancel the trials of a tuning that are queued, and have those that run stopped.

    Those of the tuning's own worker have nobody else to end them: they are over at once.
    """
    for trial in repository.open_trials(session, tuning_id):
        if trial.id == but:
            continue
        TRIALS.cancel(session, trial.id)
        if trial.lease_owner == lead_owner(tuning_id):
            lease = Lease(trial.id, trial.attempt)
            TRIALS.give_back(session, lease, _CANCELLED, max_attempts=None)
