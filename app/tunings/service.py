"""Tunings: asked for, looked at, cancelled."""

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.database import database_now
from app.core.errors import Conflict, NotFound
from app.core.jobs import TUNINGS
from app.core.queue import TaskQueue, send_tuning
from app.core.storage import Storage
from app.core.tables import Tuning
from app.projects import service as projects
from app.searches import states as searches
from app.snapshots import service as snapshots
from app.tunings import repository
from app.tunings.repository import TuningRow
from models.errors import BadRecipe
from models.recipe import Recipe
from models.search.budget import SearchBudget, check_searchable

# Of the worker's limit on a job; the rest is for what comes after the search.
_SEARCH_SHARE = 0.75


def start_tuning(
    session: Session,
    principal: Principal,
    project_id: UUID,
    *,
    recipe: Literal["auto"] | dict[str, Any],
    seed: int,
    backbone: str,
    storage: Storage,
    queue: TaskQueue,
    budget: SearchBudget | None = None,
) -> TuningRow:
    """Freeze a snapshot of the project and queue a tuning of it; the message follows the commit.

    Args:
        session: the transaction.
        principal: who asks.
        project_id: the project.
        recipe: hyperparameters, or `auto`.
        seed: of the tuning.
        backbone: what it runs on.
        storage: of the images.
        queue: of the workers.
        budget: to search for a recipe instead, see `search_budget`.

    Raises:
        NotFound: no such project, or not for this key.
        BadRecipe: an unknown hyperparameter, or a value out of range.
        BadDataset: fewer than two classes, or a class with images of fewer than two parts.
        BadName: two classes with one prompt name.
    """
    checked = Recipe.read(recipe) if budget is None else budget.auto
    project = projects.lock_project(session, principal, project_id)
    snapshot = snapshots.freeze(session, project, storage)
    if budget is not None:
        content = snapshots.read_snapshot(session, storage, snapshot.id)
        check_searchable(content.classes, content.images)
    tuning = Tuning(
        project_id=project.id,
        snapshot_id=snapshot.id,
        recipe=checked.model_dump(mode="json"),
        seed=seed,
        view=projects.view_of(project).model_dump(mode="json"),
        backbone=backbone,
        search=None if budget is None else dict(searches.new_search(budget)),
        requested_by=principal.key_id,
        queued_at=database_now(),
    )
    repository.add(session, tuning)
    after = audit.columns(tuning, "snapshot_id", "recipe", "seed", "view", "backbone")
    if budget is not None:
        after["search"] = budget.model_dump(mode="json")
    audit.record(session, "tuning.start", tuning.id, project=project.id, after=after)
    send_tuning(session, queue, tuning.id)
    return TuningRow(tuning, snapshot, None)


def search_budget(
    recipe: Literal["auto", "search"] | dict[str, Any],
    search: dict[str, Any] | None,
    *,
    time_limit_seconds: float,
) -> SearchBudget | None:
    """Return what the search may spend, where the recipe is `search`.

    Args:
        recipe: as it was asked for.
        search: what `SearchBudget.read` takes; with the recipe `search` alone.
        time_limit_seconds: what a worker gives to one job.

    Raises:
        BadRecipe: a budget that is none, or one that no search needs.
    """
    if recipe != "search":
        if search is not None:
            raise BadRecipe(
                "A budget for a search is given, and the recipe is not `search`.",
                fix='Give `"recipe": "search"` with it, or leave `search` out.',
                field="search",
            )
        return None
    budget = SearchBudget.read(search)
    most = _SEARCH_SHARE * time_limit_seconds / 60
    if budget.minutes > most:
        raise BadRecipe(
            f"The search has a budget of {budget.minutes:g} minutes; the workers give"
            f" {most:g} of them to one, with the tuning that follows.",
            fix="Search for less long, or raise SHOTLINE_TUNING_TIME_LIMIT_SECONDS.",
            field="search.minutes",
        )
    return budget


def get_tuning(session: Session, principal: Principal, tuning_id: UUID) -> TuningRow:
    """Return the tuning.

    Raises:
        NotFound: no such tuning, or not for this key.
    """
    row = repository.get(session, tuning_id)
    if row is None:
        raise NotFound.of("tuning", tuning_id)
    principal.require_project(row.tuning.project_id, "tuning", tuning_id)
    return row


def list_tunings(
    session: Session, principal: Principal, project_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[TuningRow]:
    """Return the project's tunings in the order they were asked for.

    Raises:
        NotFound: no such project, or not for this key.
    """
    projects.get_project(session, principal, project_id)
    return repository.page(session, project_id, after=after, limit=limit)


def cancel_tuning(session: Session, principal: Principal, tuning_id: UUID) -> TuningRow:
    """Cancel a queued tuning, or have the worker stop it within 2 s; again changes nothing.

    Raises:
        NotFound: no such tuning, or not for this key.
        Conflict: it has already succeeded or failed.
    """
    get_tuning(session, principal, tuning_id)
    changed = TUNINGS.cancel(session, tuning_id)
    searches.cancel_open(session, tuning_id)
    row = get_tuning(session, principal, tuning_id)
    if changed is None and row.tuning.state != "cancelled":
        raise Conflict(
            f"The tuning {str(tuning_id)!r} has already {row.tuning.state}.",
            fix="Nothing is left to cancel; start another tuning if you want another result.",
            field="tuning",
        )
    return row
