"""What people say of predictions, and the queue of those that somebody should look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.clock import utc_now
from app.core.disk import Puts
from app.core.errors import Conflict
from app.core.queue import TaskQueue
from app.core.storage import Storage
from app.core.tables import Feedback, PredictionRecord, Review, ReviewAction, Tuning
from app.feedback import repository
from app.feedback.drift import Drift, drift_of
from app.feedback.ranking import Ranked, rank
from app.images import upload
from app.images.check import Checked
from app.images.incoming import IncomingFile
from app.images.service import find_class
from app.predictions.records import RecordWriter
from app.predictions.search import get_prediction
from app.projects import repository as project_rows
from app.projects import service as projects
from app.registry import repository as registry
from app.registry.service import PRODUCTION
from app.tunings import service as tunings
from app.tunings.repository import TuningRow
from models.errors import BadInput
from models.imaging import check_image
from models.names import clean_text

_NOTE = 500


@dataclass(frozen=True)
class Queue:
    """What somebody should look at, most informative first.

    Attributes:
        waiting: how many there are, of which `entries` are the first.
        gathered: images that reviews added since the last tuning.
        drift: of what is in production.
    """

    entries: list[Ranked]
    waiting: int
    gathered: int
    drift: Drift | None


def give(
    session: Session,
    principal: Principal,
    writer: RecordWriter,
    prediction_id: UUID,
    *,
    label: str,
    note: str | None = None,
) -> Feedback:
    """Record the true label; the same one again changes nothing, another one replaces it.

    What was replaced is kept: see `history`. A freeze does not hold it up, since it changes nothing
    that decides.

    Raises:
        NotFound: no such prediction, or not for this key.
        BadReference: a label that the project has not.
        BadName: an unusable note.
        Conflict: the prediction's record is not written yet, or never was.
    """
    clean = None if note is None else clean_text(note, "note", max_length=_NOTE)
    row = _written(session, principal, writer, prediction_id)
    projects.lock_project(session, principal, row.project_id, frozen_too=True)
    true = find_class(project_rows.classes(session, [row.project_id]), label).name
    before = repository.standing(session, prediction_id)
    if before is not None and before.label == true:
        return before
    if before is not None:
        before.replaced_at = utc_now()
        session.flush()
    given = Feedback(
        prediction_id=prediction_id,
        project_id=row.project_id,
        label=true,
        note=clean,
        given_by=principal.key_id,
    )
    repository.add(session, given)
    audit.record(
        session,
        "feedback.give",
        prediction_id,
        project=row.project_id,
        before=None if before is None else {"label": before.label},
        after={"label": true, "predicted": row.label, "note": clean},
    )
    return given


def history(
    session: Session, principal: Principal, writer: RecordWriter, prediction_id: UUID
) -> Sequence[Feedback]:
    """Return all feedback on a prediction, the first one first; the last one counts.

    Raises:
        NotFound: no such prediction, or not for this key.
    """
    get_prediction(session, principal, writer, prediction_id)
    return repository.history(session, prediction_id)


def queue(
    session: Session, principal: Principal, project_id: UUID, *, limit: int, with_image: bool
) -> Queue:
    """Return what somebody should look at, see `app.feedback.ranking`.

    Raises:
        NotFound: no such project, or not for this key.
    """
    projects.get_project(session, principal, project_id)
    alias = registry.alias(session, project_id, PRODUCTION)
    drift = None if alias is None else drift_of(session, project_id, alias.version_id)
    low = (None if drift is None else drift.low_probability) or 0.0
    found = repository.waiting(session, project_id, low_probability=low, with_image=with_image)
    return Queue(
        entries=rank(found, low)[:limit],
        waiting=len(found),
        gathered=repository.gathered(session, project_id),
        drift=drift,
    )


def review(
    session: Session,
    principal: Principal,
    writer: RecordWriter,
    storage: Storage,
    kept: Puts,
    prediction_id: UUID,
    *,
    action: ReviewAction,
    label: str | None = None,
) -> Review:
    """Take a prediction out of the queue, and its image into the project's images or not.

    It goes to `train`, in the group of its part.

    Args:
        session: the transaction.
        principal: who reviews.
        writer: of records.
        storage: has the image that was kept.
        kept: stores it.
        prediction_id: the prediction.
        action: `keep` it with the label of the feedback, else of the prediction; `relabel` it; or
            `discard` it.
        label: of `relabel` alone.

    Raises:
        NotFound: no such prediction, or not for this key.
        BadInput: a label that the action does not take, or lacks.
        BadReference: a label that the project has not.
        Conflict: reviewed otherwise already; no image was kept; its bytes are there under another
            label, or its part in the holdout.
        ProjectFrozen: all changes of the project are stopped.
    """
    _check_label(action, label)
    row = _written(session, principal, writer, prediction_id)
    projects.lock_project(session, principal, row.project_id)
    wanted = _label(session, row, action, label)
    before = repository.review(session, prediction_id)
    if before is not None:
        return _again(before, action, wanted)
    image = None
    if wanted is not None:
        image = _add_image(session, principal, storage, kept, row, wanted)
    made = Review(
        prediction_id=prediction_id,
        project_id=row.project_id,
        action=action,
        label=wanted,
        image_id=image,
        reviewed_by=principal.key_id,
    )
    repository.add(session, made)
    after = audit.columns(made, "action", "label", "image_id")
    audit.record(session, "review.make", prediction_id, project=row.project_id, after=after)
    return made


def tune(
    session: Session,
    principal: Principal,
    project_id: UUID,
    *,
    recipe: Literal["auto"] | dict[str, Any] | None,
    seed: int | None,
    backbone: str,
    storage: Storage,
    queue: TaskQueue,
) -> TuningRow:
    """Tune again on what reviews have gathered, by the recipe and seed of what is in production.

    Raises:
        NotFound: no such project, or not for this key.
        Conflict: nothing was gathered since the last tuning.
        BadRecipe, BadDataset, BadName, ProjectFrozen: see `app.tunings.service.start_tuning`.
    """
    projects.lock_project(session, principal, project_id)
    if not repository.gathered(session, project_id):
        raise Conflict(
            "No image was gathered since the last tuning: another one would give the same.",
            fix="Keep or relabel predictions first: GET …/review says which; or start a tuning"
            " with POST …/tunings.",
            field="project",
        )
    alias = registry.alias(session, project_id, PRODUCTION)
    version = None if alias is None else registry.get(session, alias.version_id)
    last = None if version is None else session.get_one(Tuning, version.tuning_id)
    if recipe is None:
        recipe = "auto" if last is None else last.recipe
    return tunings.start_tuning(
        session,
        principal,
        project_id,
        recipe=recipe,
        seed=seed if seed is not None else (0 if last is None else last.seed),
        backbone=backbone,
        storage=storage,
        queue=queue,
    )


def _written(
    session: Session, principal: Principal, writer: RecordWriter, prediction_id: UUID
) -> PredictionRecord:
    """Return a prediction that is in the database, where something may refer to it."""
    row = get_prediction(session, principal, writer, prediction_id)
    found = session.get(PredictionRecord, prediction_id)
    if found is None:
        raise Conflict(
            f"The record of the prediction {str(row.id)!r} is not written yet.",
            fix="Try again in a second; while the database is away, when it is back.",
            field="prediction",
        )
    return found


def _check_label(action: ReviewAction, label: str | None) -> None:
    if (action == "relabel") != (label is not None):
        lacks = "lacks the label" if label is None else "takes no label"
        raise BadInput(
            f"The action {action!r} {lacks}.",
            fix="Send relabel with the true label; keep takes the label of the feedback, else of"
            " the prediction; discard takes none.",
            field="label",
        )


def _label(
    session: Session, row: PredictionRecord, action: ReviewAction, label: str | None
) -> str | None:
    """Return the name of the class that the image is to go to; None for `discard`."""
    if action == "discard":
        return None
    standing = repository.standing(session, row.id)
    said = row.label if standing is None else standing.label
    return find_class(project_rows.classes(session, [row.project_id]), label or said).name


def _again(before: Review, action: ReviewAction, label: str | None) -> Review:
    if (before.action, before.label) == (action, label):
        return before
    shown = "" if before.label is None else f" as {before.label!r}"
    raise Conflict(
        f"The prediction was reviewed already: {before.action}{shown}.",
        fix="Relabel or delete the image itself: PATCH or DELETE /v1/images/{image}."
        if before.image_id is not None
        else "Upload the image where it is to be tuned on after all.",
        field="action",
    )


def _add_image(
    session: Session,
    principal: Principal,
    storage: Storage,
    kept: Puts,
    row: PredictionRecord,
    label: str,
) -> UUID:
    """Put the kept image among the project's images; return its id."""
    if row.image_sha256 is None:
        raise Conflict(
            f"No image is kept with the prediction {str(row.id)!r}: it cannot be tuned on.",
            fix="Have the project keep more (keep_images), or longer; or upload the image.",
            field="prediction",
        )
    data = storage.read(row.image_sha256)
    kept.put(data)  # young again: the sweep waits until the image's own row is there
    file = IncomingFile(
        name=row.image_id or str(row.id),
        size=len(data),
        read=partial(_some_of, data),
        label=label,
        split="train",
        group=row.part_id,
    )
    entry = Checked(file, sha256=row.image_sha256, size=len(data), facts=check_image(data))
    project = projects.get_project(session, principal, row.project_id)
    plan = upload.Plan(project.id, project.name, {})
    found = upload.record(session, principal, plan, [entry]).results[0].image_id
    assert found is not None  # noqa: S101 - what is not rejected has an image
    return found


def _some_of(data: bytes, limit: int) -> bytes:
    return data[:limit]
