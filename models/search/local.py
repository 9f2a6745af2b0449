"""A search in one process, trial after trial."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from models.errors import BadRecipe, Cancelled, OutOfMemory
from models.recipe import Recipe
from models.search.budget import SearchBudget
from models.search.choice import AUTO, choose
from models.search.result import SearchResult, TrialRecord, Value
from models.search.space import params_of, recipe_of, space_of
from models.search.study import is_behind, propose
from models.search.told import told
from models.search.trial import Outcome, Trials, folds_of
from models.training_set import TrainingSet

Report = Callable[[Sequence[TrialRecord], float], None]


class _TimeIsUp(Cancelled):
    """The budget is spent."""


def no_report(trials: Sequence[TrialRecord], seconds: float) -> None:
    """Look away."""
    del trials, seconds


@dataclass
class LocalSearch:
    """Tries recipes until the budget is spent.

    Attributes:
        runner: runs a trial.
        data: what it runs it on.
        budget: of the search.
        seed: of the tuning.
        report: called after each trial with those so far and the seconds spent.
        right: by trial, whether each image was predicted right.
    """

    runner: Trials
    data: TrainingSet
    budget: SearchBudget
    seed: int
    report: Report = no_report
    right: dict[int, tuple[bool, ...]] = field(default_factory=dict)

    def run(self) -> tuple[Recipe, SearchResult]:
        """Return the recipe that was taken, and what was found.

        Raises:
            BadRecipe: `auto` itself cannot be tuned.
            OutOfMemory: likewise.
        """
        self._started = time.monotonic()
        self._trials: list[TrialRecord] = []
        most = self.budget.trials
        while not self._trials or (
            (most is None or len(self._trials) < most) and not self._time_is_up()
        ):
            self._trials.append(self._try(len(self._trials)))
            self.report(self._trials, self._seconds())
        labels, groups = self.data.labels.tolist(), self.data.groups
        names = groups or [str(index) for index in range(len(labels))]
        choice = choose(self._trials, self.right, labels, names)
        auto = self.budget.auto
        result = told(
            self.budget,
            self._trials,
            spent_seconds=self._seconds(),
            n_images=len(labels),
            n_folds=folds_of(self.data, auto),
            choice=choice,
            with_importance=True,
        )
        return recipe_of(self._trials[choice.number].params, self.budget.fixed), result

    def _try(self, number: int) -> TrialRecord:
        space = space_of(self.budget.fixed)
        params = (
            params_of(self.budget.auto, space)
            if number == AUTO
            else propose(space, self._trials, seed=self.seed, number=number)
        )
        record, started = (
            TrialRecord(number=number, state="running", params=params),
            self._seconds(),
        )
        try:
            outcome = self._run(record)
        except _TimeIsUp:
            return record.model_copy(update={"state": "stopped"})
        except (BadRecipe, OutOfMemory) as error:
            if number == AUTO:
                raise
            return record.model_copy(update={"state": "failed", "problem": error.problem})
        self.right[number] = outcome.right
        values = {**ended(outcome), "seconds": round(self._seconds() - started, 2)}
        return record.model_copy(update=values)

    def _run(self, record: TrialRecord) -> Outcome:
        space, is_auto = space_of(self.budget.fixed), record.number == AUTO

        def go_on(folds: list[float]) -> bool:
            now = record.model_copy(update={"folds": list(folds)})
            return is_auto or not is_behind(space, self._trials, now)

        def on_epoch() -> None:
            if not is_auto and self._time_is_up():
                raise _TimeIsUp("The search's time is up.")

        recipe = recipe_of(record.params, self.budget.fixed)
        return self.runner.run(recipe, go_on=go_on, on_epoch=on_epoch)

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _time_is_up(self) -> bool:
        return self._seconds() >= 60 * self.budget.minutes


def ended(outcome: Outcome) -> dict[str, Value | list[float] | None]:
    """Return what a record says of a trial that was not stopped."""
    state = "complete" if outcome.macro is not None else "pruned"
    return {
        "state": state,
        "folds": list(outcome.folds),
        "macro": outcome.macro,
        "log_loss": outcome.log_loss,
    }
