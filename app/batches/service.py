"""Batches: asked for, looked at, cancelled, deleted."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from app.batches import repository
from app.batches.repository import BatchRow
from app.batches.states import no_progress
from app.core import audit
from app.core.access import Principal
from app.core.database import database_now
from app.core.errors import Conflict, NotFound
from app.core.jobs import BATCHES, FINAL
from app.core.queue import TaskQueue, send_batch
from app.core.tables import Batch, BatchPart, ModelVersion
from app.projects import service as projects
from app.registry import repository as registry
from app.registry.service import PRODUCTION

ResultFormat = Literal["csv", "ndjson", "parquet"]


def choose_version(
    session: Session, principal: Principal, project_id: UUID, version_id: UUID | None
) -> ModelVersion:
    """Return the version, or what is in production now.

    Raises:
        NotFound: no such project, not for this key, or no such version of it.
        Conflict: nothing was promoted yet.
    """
    projects.get_project(session, principal, project_id)
    if version_id is None:
        alias = registry.alias(session, project_id, PRODUCTION)
        if alias is None:
            raise Conflict(
                f"The project {str(project_id)!r} has no version in production yet.",
                fix="Promote a version: PUT …/aliases/production; or name one with model=…",
                field="model",
            )
        version_id = alias.version_id
    version = registry.get(session, version_id)
    if version is None or version.project_id != project_id:
        raise NotFound.of("model", version_id)
    return version


def start_batch(
    session: Session,
    principal: Principal,
    project_id: UUID,
    *,
    version_id: UUID,
    top_k: int | None,
    images: Sequence[Mapping[str, Any]],
    queue: TaskQueue,
) -> BatchRow:
    """Queue a batch of images that are stored; the message follows the commit.

    Raises:
        NotFound: the project or the version is gone by now.
    """
    # No version may be deleted meanwhile; a batch predicts, which goes on in a frozen project.
    projects.lock_project(session, principal, project_id, frozen_too=True)
    version = choose_version(session, principal, project_id, version_id)
    batch = Batch(
        project_id=project_id,
        model_version_id=version.id,
        top_k=top_k,
        image_count=len(images),
        progress=dict(no_progress(len(images))),
        requested_by=principal.key_id,
        queued_at=database_now(),
    )
    repository.add(session, batch, images)
    after = audit.columns(batch, "model_version_id", "top_k", "image_count")
    audit.record(session, "batch.start", batch.id, project=project_id, after=after)
    send_batch(session, queue, batch.id)
    return BatchRow(batch, version)


def get_batch(session: Session, principal: Principal, batch_id: UUID) -> BatchRow:
    """Return the batch.

    Raises:
        NotFound: no such batch, or not for this key.
    """
    row = repository.get(session, batch_id)
    if row is None:
        raise NotFound.of("batch", batch_id)
    principal.require_project(row.batch.project_id, "batch", batch_id)
    return row


def list_batches(
    session: Session, principal: Principal, project_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[BatchRow]:
    """Return the project's batches in the order they were asked for.

    Raises:
        NotFound: no such project, or not for this key.
    """
    projects.get_project(session, principal, project_id)
    return repository.page(session, project_id, after=after, limit=limit)


def cancel_batch(session: Session, principal: Principal, batch_id: UUID) -> BatchRow:
    """Cancel a queued batch, or have the worker stop it within 2 s; again changes nothing.

    Raises:
        NotFound: no such batch, or not for this key.
        Conflict: it has already succeeded or failed.
    """
    get_batch(session, principal, batch_id)
    changed = BATCHES.cancel(session, batch_id)
    row = get_batch(session, principal, batch_id)
    if changed is None and row.batch.state != "cancelled":
        raise Conflict(
            f"The batch {str(batch_id)!r} has already {row.batch.state}.",
            fix="Nothing is left to cancel; delete the batch if you do not want it.",
            field="batch",
        )
    return row


def delete_batch(session: Session, principal: Principal, batch_id: UUID) -> None:
    """Delete a batch that has ended; its blobs are swept later.

    Raises:
        NotFound: no such batch, or not for this key.
        Conflict: it has not ended.
    """
    row = get_batch(session, principal, batch_id)
    if not repository.remove_finished(session, batch_id):
        raise Conflict(
            f"The batch {str(batch_id)!r} is {row.batch.state}.",
            fix="Cancel the batch or wait for its end, then delete it.",
            field="batch",
        )
    before = audit.columns(row.batch, "state", "model_version_id", "image_count")
    audit.record(session, "batch.delete", batch_id, project=row.batch.project_id, before=before)


def result_parts(session: Session, row: BatchRow, wanted: ResultFormat) -> Sequence[BatchPart]:
    """Return the parts of the result that there are, in their order.

    Raises:
        Conflict: nothing is done yet; or Parquet, which is one whole file, before the end.
    """
    found = repository.parts(session, row.id)
    state = row.batch.state
    if state not in FINAL and (wanted == "parquet" or not found):
        done = sum(part.count for part in found)
        raise Conflict(
            f"The batch {str(row.id)!r} is {state}: {done} of {row.batch.image_count} images are"
            " done.",
            fix="Wait for its end; what is done so far can be had as csv or ndjson.",
            field="batch",
        )
    return found
