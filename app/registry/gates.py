"""Gates: a version is measured against what it is to replace before it is promoted.

The measuring is a job of the workers (`worker.gate_run`); what it found is judged here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.database import database_now
from app.core.errors import GatesNotPassed
from app.core.jobs import FINAL
from app.core.queue import TaskQueue, send_gate
from app.core.settings import GateSettings
from app.core.tables import Alias, GateRun, ModelVersion, Project
from app.projects import repository as project_rows
from app.projects import service as projects
from app.projects.gate_policy import GatePolicy
from app.registry import repository
from app.registry.service import PRODUCTION, get_version
from app.registry.verdicts import Gate, Verdict, in_the_way, judge, overall
from models.classes import ClassSpec
from models.evaluation.contest import GateResult


@dataclass(frozen=True)
class GatesView:
    """What is known of a version's gates.

    Attributes:
        version: that they are of.
        against: in production now; None where nothing is.
        policy: the rules that count now.
        run: the last run against what is in production now; None where there was none.
        gates: what it found, judged; empty where it has not succeeded.
    """

    version: ModelVersion
    against: ModelVersion | None
    policy: GatePolicy
    run: GateRun | None
    gates: list[Gate]

    @property
    def result(self) -> GateResult | None:
        """The figures, where there are any."""
        if self.run is None or self.run.result is None:
            return None
        return GateResult.model_validate(self.run.result)

    @property
    def verdict(self) -> Verdict | None:
        """The worst of all gates; None where nothing was found yet."""
        return overall(self.gates) if self.gates else None

    @property
    def failing(self) -> list[Gate]:
        """The gates that keep the version out of production."""
        return in_the_way(self.gates, self.policy)

    @property
    def passed(self) -> bool:
        """Whether the version may be promoted."""
        return not self.policy.enabled or (bool(self.gates) and not self.failing)


class _Sides(NamedTuple):
    version: ModelVersion
    against: ModelVersion | None


def look(
    session: Session, principal: Principal, version_id: UUID, settings: GateSettings
) -> GatesView:
    """Return what is known of the version's gates.

    Raises:
        NotFound: no such version, or not for this key.
    """
    version = get_version(session, principal, version_id).row
    project = session.get_one(Project, version.project_id)
    return view_of(session, project, version, settings)


def view_of(
    session: Session, project: Project, version: ModelVersion, settings: GateSettings
) -> GatesView:
    """Return what is known of the gates of a version of `project`."""
    policy = GatePolicy.of(project.gates, settings)
    against = _against(session, version)
    run = _last_run(session, _Sides(version, against))
    gates: list[Gate] = []
    if run is not None and run.state == "succeeded" and run.result is not None:
        classes = _called_now(session, version)
        result = GateResult.model_validate(run.result)
        gates = judge(result, version.metrics, classes, policy)
    return GatesView(version, against, policy, run, gates)


def start(
    session: Session,
    principal: Principal,
    version_id: UUID,
    *,
    settings: GateSettings,
    queue: TaskQueue,
) -> GatesView:
    """Queue a run of the version's gates; nothing is queued where one is under way.

    Raises:
        NotFound: no such version, or not for this key.
        ProjectFrozen: all changes of the project are stopped.
    """
    version = get_version(session, principal, version_id).row
    project = projects.lock_project(session, principal, version.project_id)
    found = view_of(session, project, version, settings)
    if found.run is None or found.run.state in FINAL:
        run = queue_run(session, version, requested_by=principal.key_id)
        send_gate(session, queue, run.id)
    return view_of(session, project, version, settings)


def queue_run(
    session: Session, version: ModelVersion, *, requested_by: UUID | None = None
) -> GateRun:
    """Insert a run of the version's gates; who calls sees to it that a worker is woken."""
    against = _against(session, version)
    run = GateRun(
        project_id=version.project_id,
        version_id=version.id,
        against_id=None if against is None else against.id,
        requested_by=requested_by,
        queued_at=database_now(),
    )
    session.add(run)
    session.flush()
    after = audit.columns(run, "version_id", "against_id")
    audit.record(session, "gate.start", run.id, project=version.project_id, after=after)
    return run


def require_passed(found: GatesView) -> None:
    """Refuse what has not passed its gates.

    Raises:
        GatesNotPassed: with what stands in the way, and the numbers.
    """
    if found.passed:
        return
    number, model = found.version.number, found.version.id
    if found.run is None or found.run.state == "cancelled":
        problem = f"The gates of version {number} {_against_what(found)} were not run yet."
        fix = f"They are started now; wait for them: GET /v1/models/{model}/gates?wait=300."
    elif found.run.state == "failed":
        reason = (found.run.failure or {}).get("problem", "It is not known why.")
        problem = f"The gates of version {number} could not be run: {reason}"
        fix = f"{(found.run.failure or {}).get('fix', '')} They are started again now.".strip()
    elif found.run.state != "succeeded":
        problem = f"The gates of version {number} {_against_what(found)} are {found.run.state}."
        fix = f"Wait for them, then try again: GET /v1/models/{model}/gates?wait=300."
    else:
        shown = " ".join(f"{gate.name}: {gate.verdict}. {gate.detail}" for gate in found.failing)
        problem = f"Version {number} does not pass its gates. {shown}"
        fix = (
            "Tune on more images; or have an admin promote it with a reason in `override`, or"
            " change the project's `gates`."
        )
    raise GatesNotPassed(problem, fix=fix, field="version", gates=summary(found))


def summary(found: GatesView) -> Mapping[str, Any]:
    """Return what a refusal says of the gates, as JSON."""
    return {
        "model": str(found.version.id),
        "state": None if found.run is None else found.run.state,
        "verdict": found.verdict,
        "failing": [gate._asdict() for gate in found.failing],
    }


def _against_what(found: GatesView) -> str:
    against = found.against
    return "with nothing in production" if against is None else f"against version {against.number}"


def _called_now(session: Session, version: ModelVersion) -> list[ClassSpec]:
    """Return the version's classes by the names that they have now, which floors go by."""
    classes = [ClassSpec.model_validate(spec) for spec in version.classes]
    rows = project_rows.classes(session, [version.project_id])
    if len(rows) != len(classes):  # of a version that was put into a project by hand
        return classes
    return [
        spec.model_copy(update={"name": row.name}) for spec, row in zip(classes, rows, strict=True)
    ]


def _against(session: Session, version: ModelVersion) -> ModelVersion | None:
    """Return what the version is to be measured against: in production, if it is not there itself.

    What is there now was measured against what it replaced; that is told by its last run.
    """
    alias = session.get(Alias, (version.project_id, PRODUCTION))
    if alias is None:
        return None
    if alias.version_id == version.id:
        last = session.scalars(
            select(GateRun).where(GateRun.version_id == version.id).order_by(GateRun.id.desc())
        ).first()
        against = None if last is None else last.against_id
        return None if against is None else repository.get(session, against)
    return repository.get(session, alias.version_id)


def _last_run(session: Session, sides: _Sides) -> GateRun | None:
    against = None if sides.against is None else sides.against.id
    query = (
        select(GateRun)
        .where(
            GateRun.version_id == sides.version.id,
            GateRun.against_id.is_(None) if against is None else GateRun.against_id == against,
        )
        .order_by(GateRun.id.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return session.scalars(query).one_or_none()
