"""Does one trial of a search and says in its row how it ended; whoever calls holds its lease."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import structlog

from app.core.database import Database
from app.core.jobs import TRIALS, Lease, Standing, failure_of
from app.core.tables import SearchTrial
from app.searches import repository
from app.searches.states import record_of
from models.errors import BadRecipe, OutOfMemory
from models.search.budget import SearchBudget
from models.search.choice import AUTO
from models.search.result import TrialRecord
from models.search.space import recipe_of, space_of
from models.search.study import is_behind
from models.search.trial import Outcome, Trials
from worker.child import LeaseLost, patiently

log = structlog.get_logger(__name__)


class TrialWork:
    """Runs trials of one search.

    Args:
        database: holds their rows.
        tuning_id: whose search it is.
        budget: of the search.
        runner: runs a trial.
        on_epoch: called after each epoch; may raise to end the trial.
    """

    def __init__(
        self,
        database: Database,
        tuning_id: UUID,
        budget: SearchBudget,
        runner: Trials,
        on_epoch: Callable[[], None],
    ) -> None:
        self._database, self._tuning_id = database, tuning_id
        self._space, self._fixed = space_of(budget.fixed), budget.fixed
        self._runner, self._on_epoch = runner, on_epoch

    def do(self, trial: SearchTrial, lease: Lease) -> None:
        """Run the trial to its end, or until it is given up as one of the worse.

        A recipe that cannot be tuned ends its trial and nothing else.

        Raises:
            LeaseLost: the trial is not ours any more, or is not wanted any more.
        """
        record = record_of(trial).model_copy(update={"folds": []})
        started = time.monotonic()
        try:
            recipe = recipe_of(record.params, self._fixed)
            outcome = self._runner.run(
                recipe,
                go_on=lambda folds: self._goes_on(record, folds, lease),
                on_epoch=self._on_epoch,
            )
        except (BadRecipe, OutOfMemory) as error:
            failure = failure_of(error)
            log.info("trial_failed", trial=trial.number, problem=error.problem)
            patiently(lambda: self._fail(lease, failure))
            return
        seconds = round(time.monotonic() - started, 2)
        patiently(lambda: self._complete(lease, outcome, seconds))
        log.info("trial", trial=trial.number, macro=outcome.macro, folds=outcome.folds)

    def _goes_on(self, record: TrialRecord, folds: list[float], lease: Lease) -> bool:
        """Keep what the folds came to, and say whether the trial is worth another one."""

        def keep() -> tuple[Standing, list[TrialRecord]]:
            with self._database.unit_of_work() as session:
                standing = TRIALS.note(session, lease, folds=list(folds))
                rows = repository.trials(session, self._tuning_id)
                return standing, [record_of(row) for row in rows]

        standing, others = patiently(keep)
        if standing != "held":
            raise LeaseLost
        now = record.model_copy(update={"folds": list(folds)})
        return record.number == AUTO or not is_behind(self._space, others, now)

    def _complete(self, lease: Lease, outcome: Outcome, seconds: float) -> None:
        values: dict[str, Any] = {"folds": outcome.folds, "result": _result(outcome, seconds)}
        if outcome.macro is not None:
            values["hits"] = "".join("1" if right else "0" for right in outcome.right)
        with self._database.unit_of_work() as session:
            TRIALS.note(session, lease, **values)
            if not TRIALS.complete(session, lease):
                raise LeaseLost

    def _fail(self, lease: Lease, failure: Any) -> None:
        with self._database.unit_of_work() as session:
            if not TRIALS.fail(session, lease, failure):
                raise LeaseLost


def _result(outcome: Outcome, seconds: float) -> dict[str, Any]:
    state = "complete" if outcome.macro is not None else "pruned"
    return {
        "state": state,
        "macro": outcome.macro,
        "log_loss": outcome.log_loss,
        "seconds": seconds,
    }
