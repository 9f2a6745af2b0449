"""Leads the search of a tuning, in the tuning's own child, and does trials itself.

The rows of the trials are all that there is of a search: one waits in the queue for whichever
worker is free, and whenever it is taken the next one is drawn. This process takes trials like any
other, so that one worker alone is enough; it draws them on a thread of its own, which also renews
the lease of its own trial, counts the time that the search has spent, and tells how far it is.

Whatever becomes of this process, the next one that has the tuning goes on from the rows.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog

from app.core.background import Repeater
from app.core.database import Database, database_now
from app.core.jobs import FINAL, TRIALS, TUNINGS, Failure, Lease
from app.core.queue import TaskQueue, wake
from app.core.settings import TuningSettings
from app.core.tables import SearchTrial, Tuning
from app.searches import repository
from app.searches.states import (
    Search,
    cancel_open,
    lead_owner,
    progress_of,
    record_of,
    result_of,
    search_of,
)
from models.errors import BadRecipe, Cancelled
from models.recipe import Recipe
from models.search.budget import SearchBudget
from models.search.choice import AUTO, choose
from models.search.result import Choice, SearchResult
from models.search.space import params_of, recipe_of, space_of
from models.search.study import importance, propose
from models.search.trial import Trials, folds_of
from models.training_set import TrainingSet
from worker.child import HandedBack, LeaseLost, patiently
from worker.trial import TrialWork

log = structlog.get_logger(__name__)

_GIVEN_BACK = Failure(
    problem="The worker that had the trial stopped.", fix="Start the worker; the search goes on."
)
_TOO_OFTEN = Failure(
    problem="The worker was lost each time it tried this recipe; most often the memory ran out.",
    fix="Fix n_ctx or class_specific to smaller values in the search.",
)


class _TrialOver(Cancelled):
    """The trial that is under way is not wanted any more."""


class Found(NamedTuple):
    """What a search came to."""

    recipe: Recipe
    result: SearchResult


class SearchLead:
    """Leads one search.

    Args:
        row: of the tuning, which `lease` gives a right to.
        lease: of the tuning.
        database: holds tuning and trials.
        queue: other workers are woken through it.
        settings: leases and pauses.
        max_attempts: so often a trial may be lost.
        stopping: says whether this worker was told to stop.
    """

    def __init__(
        self,
        row: Tuning,
        lease: Lease,
        database: Database,
        queue: TaskQueue,
        settings: TuningSettings,
        *,
        stopping: Callable[[], bool],
    ) -> None:
        search = search_of(row)
        assert search is not None  # noqa: S101 - else nobody leads one
        self._search: Search = search
        self._row, self._lease, self._settings = row, lease, settings
        self._database, self._queue, self._stopping = database, queue, stopping
        self._budget = SearchBudget.model_validate(search["budget"])
        self._space = space_of(self._budget.fixed)
        self._owner = lead_owner(row.id)
        self._own: Lease | None = None
        self._own_is_over = self._lost = False
        self._told_ended = 0
        self._turn = threading.Lock()

    def found(self) -> Found | None:
        """Return what an earlier attempt found, where it got to the end of the search."""
        if self._search["choice"] is None:
            return None
        with self._database.reading() as session:
            trials = repository.trials(session, self._row.id)
        return self._found(Choice.model_validate(self._search["choice"]), trials)

    def run(self, runner: Trials, data: TrainingSet) -> Found:
        """Search until the budget is spent; return what was taken.

        Raises:
            LeaseLost: the tuning is not ours any more, or was cancelled.
            HandedBack: the worker was told to stop.
            BadRecipe: `auto` itself cannot be tuned.
        """
        self._search["n_images"] = len(data.labels)
        self._search["n_folds"] = folds_of(data, self._budget.auto)
        patiently(self._take_over)
        self._counted_at = time.monotonic()
        work = TrialWork(self._database, self._row.id, self._budget, runner, self._look_up)
        keeper = Repeater("search", self._keep_up, self._settings.poll_seconds)
        keeper.start()
        try:
            while self._goes_on():
                self._try_next(work)
        finally:
            keeper.stop(timeout=60.0)
        return patiently(lambda: self._conclude(data))

    def _take_over(self) -> None:
        """What an earlier attempt had under way itself is lost: it will not be heard of."""
        with self._database.unit_of_work() as session:
            if TUNINGS.note(session, self._lease, search=dict(self._search)) != "held":
                raise LeaseLost
            repository.end_leases(session, self._row.id, self._owner)
            self._told_ended = _ended(repository.trials(session, self._row.id))

    def _goes_on(self) -> bool:
        """Keep up, then say whether there is, or will be, another trial.

        Raises:
            LeaseLost, HandedBack: see `run`.
        """
        self._check()
        trials = patiently(self._keep_up)
        self._check()
        if trials and trials[AUTO].state == "failed":
            failure = trials[AUTO].failure or {}
            raise BadRecipe(
                f"The recipe `auto`, which others are compared with: {failure.get('problem')}",
                fix=failure.get("fix", "See the worker's log."),
            )
        return not self._is_over(trials) or any(
            trial.state not in FINAL and not trial.cancel_requested for trial in trials
        )

    def _try_next(self, work: TrialWork) -> None:
        """Do the next trial that nobody else has taken; where there is none, wait a moment."""
        taken = patiently(self._claim)
        if taken is None:
            time.sleep(self._settings.poll_seconds / 2)
            return
        trial, lease = taken
        try:
            work.do(trial, lease)
        except (_TrialOver, LeaseLost):
            log.info("trial_over", trial=trial.number)
            self._give_back(lease)
        except Cancelled:
            self._give_back(lease)
            raise
        finally:
            with self._turn:
                self._own, self._own_is_over = None, False

    def _claim(self) -> tuple[SearchTrial, Lease] | None:
        with self._turn, self._database.unit_of_work() as session:
            trial = repository.next_queued(session, self._row.id)
            if trial is None:
                return None
            lease = TRIALS.claim(
                session, trial.id, owner=self._owner, seconds=self._settings.lease_seconds
            )
            if lease is None:
                return None
            # One more loss here would be the tuning's last one too.
            if trial.number != AUTO and trial.losses >= self._settings.max_attempts - 1 > 0:
                TRIALS.fail(session, lease, _TOO_OFTEN)
                return None
            session.refresh(trial)
            self._own, self._own_is_over = lease, False
            return trial, lease

    def _give_back(self, lease: Lease) -> None:
        """End a trial of our own without a result; a cancelled one is not queued again."""

        def write() -> None:
            with self._database.unit_of_work() as session:
                state = TRIALS.give_back(session, lease, _GIVEN_BACK, max_attempts=None)
                if state == "queued":
                    wake(session, self._queue, TRIALS.task, lease.job_id)

        patiently(write)

    def _look_up(self) -> None:
        """Called after each epoch of a trial of our own.

        Raises:
            _TrialOver: it is not wanted any more.
            LeaseLost, HandedBack: see `run`.
        """
        self._check()
        if self._own_is_over:
            raise _TrialOver("The search's time is up.")

    def _check(self) -> None:
        if self._lost:
            raise LeaseLost
        if self._stopping():
            raise HandedBack("The worker was told to stop.")

    def _keep_up(self) -> Sequence[SearchTrial]:
        """Count the time, renew our own trial's lease, end what is too late, draw what is wanted.

        Raises:
            Unavailable: the database is away; nothing is lost by that.
        """
        with self._turn:
            now = time.monotonic()
            self._search["spent_seconds"] += now - self._counted_at
            self._counted_at = now
            with self._database.reading() as session:
                trials = repository.trials(session, self._row.id)
            params = self._wanted(trials)
            with self._database.unit_of_work() as session:
                standing = TUNINGS.note(session, self._lease, **self._values(trials))
                if standing != "held":
                    self._lost = True
                    return trials
                self._renew_own(session)
                if self._time_is_up():
                    auto = trials[AUTO].id if trials else None
                    cancel_open(session, self._row.id, but=auto)
                elif params is not None and not repository.count_queued(session, self._row.id):
                    self._add(session, len(trials), params)
            with self._database.reading() as session:
                return repository.trials(session, self._row.id)

    def _values(self, trials: Sequence[SearchTrial]) -> dict[str, Any]:
        """Return what the tuning's row is to say; a trial that has ended clears it of losses."""
        values: dict[str, Any] = {
            "search": dict(self._search),
            "progress": progress_of(self._search, trials),
        }
        ended = _ended(trials)
        if ended > self._told_ended:
            self._told_ended = ended
            values["losses"] = 0
        return values

    def _renew_own(self, session: Any) -> None:
        if self._own is None:
            return
        until = database_now(self._settings.lease_seconds)
        if TRIALS.note(session, self._own, lease_until=until) != "held":
            self._own_is_over = True

    def _wanted(self, trials: Sequence[SearchTrial]) -> dict[str, Any] | None:
        """Return the next trial's hyperparameters, where one more is to wait for a worker."""
        waiting = any(trial.state == "queued" for trial in trials)
        if trials and (waiting or self._is_over(trials)):
            return None
        if not trials:
            return dict(params_of(self._budget.auto, self._space))
        records = [record_of(trial) for trial in trials]
        drawn = propose(self._space, records, seed=self._row.seed, number=len(records))
        return dict(drawn)

    def _add(self, session: Any, number: int, params: dict[str, Any]) -> None:
        trial = SearchTrial(
            project_id=self._row.project_id,
            tuning_id=self._row.id,
            number=number,
            params=params,
            queued_at=database_now(),
        )
        session.add(trial)
        session.flush()
        wake(session, self._queue, TRIALS.task, trial.id)

    def _is_over(self, trials: Sequence[SearchTrial]) -> bool:
        """Say whether no more trials are drawn; `auto` is drawn whatever the budget."""
        most = self._budget.trials
        drawn = most is not None and len(trials) >= most
        return bool(trials) and (drawn or self._time_is_up())

    def _time_is_up(self) -> bool:
        return self._search["spent_seconds"] >= 60 * self._budget.minutes

    def _conclude(self, data: TrainingSet) -> Found:
        """Choose, and write that into the tuning's row: from here on it is like any other."""
        with self._database.reading() as session:
            trials = repository.trials(session, self._row.id, hits=True)
        records = [record_of(trial) for trial in trials]
        right = {it.number: [hit == "1" for hit in it.hits] for it in trials if it.hits is not None}
        choice = choose(records, right, data.labels.tolist(), data.groups or [])
        self._search["choice"] = choice.model_dump(mode="json")
        shares = importance(self._space, records)
        self._search["importance"] = [share.model_dump(mode="json") for share in shares]
        found = self._found(choice, trials)
        with self._database.unit_of_work() as session:
            values = {"search": dict(self._search), "recipe": found.recipe.model_dump(mode="json")}
            if TUNINGS.note(session, self._lease, losses=0, **values) != "held":
                raise LeaseLost
        log.info("recipe_chosen", trial=choice.number, reason=choice.reason)
        return found

    def _found(self, choice: Choice, trials: Sequence[SearchTrial]) -> Found:
        recipe = recipe_of(trials[choice.number].params, self._budget.fixed)
        return Found(recipe, result_of(self._search, trials))


def _ended(trials: Sequence[SearchTrial]) -> int:
    return sum(trial.state == "succeeded" for trial in trials)
