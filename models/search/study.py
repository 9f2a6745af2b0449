"""What Optuna does in a search: propose the next trial, give up hopeless ones, weigh importance.

The database (or a list) is the only memory: a study is made anew from the trials' records whenever
something is asked of it, so that any process can ask at any time.
"""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from models.search.choice import objective
from models.search.result import Importance, TrialRecord, Value
from models.search.space import Space

# So many trials are drawn at random before the sampler learns from them, and so many must be
# complete before one is given up that is below their median.
_STARTUP, _UNPRUNED = 8, 4
# With fewer complete trials than this, importance is not told.
_LEAST_TOLD = 8


def propose(
    space: Space, trials: Sequence[TrialRecord], *, seed: int, number: int
) -> dict[str, Value]:
    """Return the hyperparameters that trial `number` should try, by TPE.

    Args:
        space: where to search.
        trials: those so far; of those under way it is assumed that they turn out badly, so that
            two workers do not try the same.
        seed: of the search.
        number: of the trial; the same trials, seed and number give the same answer.
    """
    # Any non-negative seed is fit for NumPy's sequence, and one of 32 bits for the sampler.
    state = np.random.SeedSequence([seed, number]).generate_state(1)
    study = _study(space, trials, seed=int(state[0]))
    return cast("dict[str, Value]", study.ask(_distributions(space)).params)


def is_behind(space: Space, trials: Sequence[TrialRecord], trial: TrialRecord) -> bool:
    """Say whether a trial is so far behind after its last fold that it is better given up."""
    if not _fits(space, trial):
        return False
    others = [other for other in trials if other.number != trial.number]
    study = _study(space, others, seed=0)
    return bool(study.pruner.prune(study, _frozen(_distributions(space), trial)))


def importance(space: Space, trials: Sequence[TrialRecord]) -> list[Importance]:
    """Return each hyperparameter's importance, largest first (PED-ANOVA: Watanabe et al. 2023).

    Nothing where there are too few complete trials, or all of them are equal.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if len(complete) < _LEAST_TOLD or len({(it.macro, it.log_loss) for it in complete}) == 1:
        return []
    shares = optuna.importance.get_param_importances(_study(space, complete, seed=0))
    found = [(name, float(share)) for name, share in shares.items()]
    return [Importance(name=name, share=share) for name, share in found if math.isfinite(share)]


def _study(space: Space, trials: Sequence[TrialRecord], *, seed: int) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells every trial on standard error
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED, n_warmup_steps=0),
    )
    distributions = _distributions(space)
    study.add_trials([_frozen(distributions, trial) for trial in trials if _fits(space, trial)])
    return study


def _fits(space: Space, trial: TrialRecord) -> bool:
    """Say whether a trial lies in the space; not one that an older Shotline drew from another."""
    try:
        _frozen(_distributions(space), trial)
    except ValueError:
        return False
    return True


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: where.distribution() for name, where in space.items()}


def _frozen(distributions: dict[str, BaseDistribution], trial: TrialRecord) -> FrozenTrial:
    """Return the trial as Optuna knows it; one that failed or was stopped is only not repeated."""
    value = None
    state = TrialState.RUNNING
    if trial.macro is not None and trial.log_loss is not None:
        state, value = TrialState.COMPLETE, objective(trial.macro, trial.log_loss)
    elif trial.state == "pruned":
        state, value = TrialState.PRUNED, trial.folds[-1]
    elif trial.state in ("failed", "stopped"):
        state = TrialState.FAIL
    return create_trial(
        state=state,
        value=value,
        params=dict(trial.params),
        distributions=distributions,
        intermediate_values=dict(enumerate(trial.folds)),
    )
