"""Shadow: the candidate answers live images beside production, and its answers are only kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.errors import Conflict
from app.core.ids import time_of
from app.core.settings import GateSettings
from app.core.tables import ModelVersion, Project, Tuning
from app.feedback.drift import Drift, drift_of
from app.projects import repository as project_rows
from app.projects import service as projects
from app.registry import gates
from app.registry import repository as registry
from app.registry.gates import GatesView
from app.registry.service import CANDIDATE, PRODUCTION
from app.shadow import repository
from app.shadow.repository import Example, Pair, Right
from models.errors import ArtifactMismatch, ShotlineError
from models.evaluation.proportions import proportion
from models.evaluation.results import Proportion

State = Literal["off", "waiting", "refused", "on"]
_EXAMPLES = 20


@dataclass(frozen=True)
class ShadowView:
    """What the candidate said of live images, beside production.

    Attributes:
        state: `off`; `waiting` for a version; `refused`, since production's features do not fit the
            candidate; `on`.
        why: in a sentence, where it does not answer.
        since: when the first of the counted images came.
    """

    project: Project
    production: ModelVersion | None
    candidate: ModelVersion | None
    state: State
    why: str | None
    gates: GatesView | None = None
    pairs: list[Pair] = field(default_factory=list)
    since: datetime | None = None
    right: Right = field(default_factory=lambda: Right(0, 0, 0))
    examples: Sequence[Example] = ()
    drift: Drift | None = None

    @property
    def images(self) -> int:
        """How many images both answered."""
        return sum(pair.images for pair in self.pairs)

    @property
    def agreement(self) -> Proportion | None:
        """The share of them with the same decision and label; None of nothing."""
        alike = sum(pair.images for pair in self.pairs if not pair.differs)
        return proportion(alike, self.images) if self.images else None

    @property
    def decisions_differ(self) -> int:
        """Of how many the decision is another."""
        return sum(pair.images for pair in self.pairs if pair.production != pair.candidate)


def switch(
    session: Session,
    principal: Principal,
    project_id: UUID,
    *,
    enabled: bool,
    backbone_digest: str | None,
) -> None:
    """Let the candidate answer beside production, or not any more.

    Args:
        session: the transaction.
        principal: who switches.
        project_id: the project.
        enabled: whether it answers.
        backbone_digest: of the gateway's encoder; None where there is none yet.

    Raises:
        NotFound: no such project, or not for this key.
        ArtifactMismatch: the candidate is of another backbone than the gateway's.
        Conflict: it looks at images in another way than what is in production.
        ProjectFrozen: all changes of the project are stopped.
    """
    project = projects.lock_project(session, principal, project_id)
    if enabled:
        production, candidate = _sides(session, project_id)
        problem = _misfit(session, production, candidate, backbone_digest)
        if problem is not None:
            raise problem
    if project.shadow != enabled:
        before, project.shadow = project.shadow, enabled
        session.flush()
        audit.record(
            session,
            "project.shadow",
            project_id,
            project=project_id,
            before={"shadow": before},
            after={"shadow": enabled},
        )
        project_rows.note_change(session, project_id)


def look(
    session: Session,
    principal: Principal,
    project_id: UUID,
    *,
    backbone_digest: str | None,
    settings: GateSettings,
) -> ShadowView:
    """Return what the candidate said of live images.

    Raises:
        NotFound: no such project, or not for this key.
    """
    project = projects.get_project(session, principal, project_id)
    production, candidate = _sides(session, project_id)
    state, why = _state(session, project, production, candidate, backbone_digest)
    drift = None if production is None else drift_of(session, project_id, production.id)
    if production is None or candidate is None or production.id == candidate.id:
        return ShadowView(project, production, candidate, state, why, drift=drift)
    sides = (candidate.id, production.id)
    first = repository.first_id(session, project_id, *sides)
    return ShadowView(
        project,
        production,
        candidate,
        state,
        why,
        gates=gates.view_of(session, project, candidate, settings),
        pairs=repository.pairs(session, project_id, *sides),
        since=None if first is None else datetime.fromtimestamp(time_of(first), UTC),
        right=repository.right(session, project_id, *sides),
        examples=repository.examples(session, project_id, *sides, _EXAMPLES),
        drift=drift,
    )


def _sides(session: Session, project_id: UUID) -> tuple[ModelVersion | None, ModelVersion | None]:
    named = {row.name: version for row, version in registry.aliases(session, project_id)}
    return named.get(PRODUCTION), named.get(CANDIDATE)


def _state(
    session: Session,
    project: Project,
    production: ModelVersion | None,
    candidate: ModelVersion | None,
    backbone_digest: str | None,
) -> tuple[State, str | None]:
    if not project.shadow:
        return "off", None
    if production is None:
        return "waiting", "Nothing is in production yet."
    if candidate is None:
        return "waiting", "There is no candidate; the next tuning makes one."
    if candidate.id == production.id:
        return "waiting", "The candidate is what is in production; the next tuning makes another."
    problem = _misfit(session, production, candidate, backbone_digest)
    return ("on", None) if problem is None else ("refused", problem.problem)


def _misfit(
    session: Session,
    production: ModelVersion | None,
    candidate: ModelVersion | None,
    backbone_digest: str | None,
) -> ShotlineError | None:
    """Return why the candidate cannot answer by the features that production gets; None if it can.

    One image is encoded once: the line must not wait for a second encoder.
    """
    if candidate is None:
        return None
    digest = backbone_digest or (None if production is None else production.backbone_digest)
    if digest is not None and candidate.backbone_digest != digest:
        return ArtifactMismatch(
            f"The candidate, version {candidate.number}, was tuned for the backbone"
            f" {candidate.backbone!r} ({candidate.backbone_digest[:19]}…); this gateway has another"
            f" ({digest[:19]}…), and encodes an image once.",
            fix="Tune again with the gateway's backbone; or promote it, and start the gateway with"
            " its own.",
            field="backbone",
        )
    if production is not None and _view(session, production) != _view(session, candidate):
        return Conflict(
            f"The candidate, version {candidate.number}, looks at another part of the image or"
            f" scales it otherwise than version {production.number}, which is in production: they"
            " cannot share what an image is encoded to.",
            fix="Promote it by its gates; or tune again with the view of what is in production.",
            field="view",
        )
    return None


def _view(session: Session, version: ModelVersion) -> dict[str, object]:
    view: dict[str, object] = session.get_one(Tuning, version.tuning_id).view
    return view
