"""The registry: model versions, which never change, and the aliases that move between them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.errors import Conflict, NotFound
from app.core.tables import Alias, AliasMove, ModelVersion, MoveKind, Tuning
from app.projects import repository as project_rows
from app.projects import service as projects
from app.registry import repository
from models.errors import BadName
from models.names import clean_text

PRODUCTION = project_rows.PRODUCTION
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class NewVersion:
    """What a tuning made, stored and ready to be recorded.

    Attributes:
        digest: of the artifact.
        artifact_sha256: of its file in storage.
        report_sha256: of the HTML report in storage, where there is one.
        backbone: the form by which the backbone was loaded.
        backbone_digest: the backbone.
        classes: the ordered list of `ClassSpec` as JSON.
        metrics: `models.artifact.TuningMetrics` as JSON.
    """

    digest: str
    artifact_sha256: str
    report_sha256: str | None
    backbone: str
    backbone_digest: str
    classes: list[Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class VersionView:
    """A version and the aliases that name it."""

    row: ModelVersion
    aliases: list[str]

    @property
    def id(self) -> UUID:
        """The version's id."""
        return self.row.id


@dataclass(frozen=True)
class AliasView:
    """An alias and the version that it names."""

    row: Alias
    version: ModelVersion


def add_version(session: Session, tuning: Tuning, new: NewVersion) -> ModelVersion:
    """Record what `tuning` made under the project's next number."""
    project_rows.lock(session, tuning.project_id)  # so that no two versions get one number
    version = ModelVersion(
        project_id=tuning.project_id,
        tuning_id=tuning.id,
        number=repository.next_number(session, tuning.project_id),
        digest=new.digest,
        artifact_sha256=new.artifact_sha256,
        report_sha256=new.report_sha256,
        backbone=new.backbone,
        backbone_digest=new.backbone_digest,
        classes=new.classes,
        metrics=new.metrics,
    )
    repository.add(session, version)
    audit.record(
        session, "version.add", version.id, project=version.project_id, after=_recorded(version)
    )
    return version


def get_version(session: Session, principal: Principal, version_id: UUID) -> VersionView:
    """Return the version.

    Raises:
        NotFound: no such version, or not for this key.
    """
    row = repository.get(session, version_id)
    if row is None:
        raise NotFound.of("model", version_id)
    principal.require_project(row.project_id, "model", version_id)
    return VersionView(row, repository.names_of(session, [row.id])[row.id])


def report_of(found: VersionView) -> str:
    """Return the sha256 of the version's HTML report.

    Raises:
        NotFound: none was made.
    """
    if found.row.report_sha256 is None:
        raise NotFound(
            f"Version {found.row.number} has no HTML report.",
            fix="Read the figures as JSON: leave format=html and Accept: text/html out.",
            field="format",
        )
    return found.row.report_sha256


def list_versions(
    session: Session, principal: Principal, project_id: UUID, *, after: UUID | None, limit: int
) -> Sequence[VersionView]:
    """Return the project's versions in their order.

    Raises:
        NotFound: no such project, or not for this key.
    """
    projects.get_project(session, principal, project_id)
    rows = repository.page(session, project_id, after=after, limit=limit)
    names = repository.names_of(session, [row.id for row in rows])
    return [VersionView(row, names[row.id]) for row in rows]


def delete_version(
    session: Session, principal: Principal, version_id: UUID, *, decided: bool = False
) -> None:
    """Delete a version that never served: what once decided must stay to be explained.

    Args:
        session: the transaction.
        principal: who deletes.
        version_id: the version.
        decided: whether predictions of it are still to be written.

    Raises:
        NotFound: no such version, or not for this key.
        Conflict: an alias names it or once did, or predictions or a batch were made with it.
    """
    found = get_version(session, principal, version_id)
    projects.lock_project(session, principal, found.row.project_id)  # no alias may move meanwhile
    if repository.was_ever_named(session, version_id):
        why = "an alias names it, or once did"
    elif decided or repository.has_predictions(session, version_id):
        why = "predictions were made with it"
    elif repository.has_batches(session, version_id):
        why = "a batch names it"
    else:
        project_id, before = found.row.project_id, _recorded(found.row)
        audit.record(session, "version.delete", version_id, project=project_id, before=before)
        session.delete(found.row)
        session.flush()
        project_rows.note_deletion(session)
        return
    raise Conflict(
        f"Version {found.row.number} cannot be deleted: {why}.",
        fix="Leave it; a version is a few kilobytes. Only versions that never served are deleted.",
        field="model",
    )


def list_aliases(session: Session, principal: Principal, project_id: UUID) -> Sequence[AliasView]:
    """Return the project's aliases.

    Raises:
        NotFound: no such project, or not for this key.
    """
    projects.get_project(session, principal, project_id)
    return [AliasView(*found) for found in repository.aliases(session, project_id)]


def list_moves(
    session: Session,
    principal: Principal,
    project_id: UUID,
    name: str,
    *,
    after: UUID | None,
    limit: int,
) -> Sequence[AliasMove]:
    """Return every move of an alias, the first one first.

    Raises:
        NotFound: no such project, or not for this key.
        BadName: no alias can be called that.
    """
    projects.get_project(session, principal, project_id)
    return repository.move_page(session, project_id, _alias(name), after=after, limit=limit)


def promote(
    session: Session,
    principal: Principal,
    project_id: UUID,
    name: str,
    number: int,
    *,
    reason: str | None = None,
) -> AliasView:
    """Let the alias `name` stand for version `number`; nothing happens where it does already.

    Raises:
        NotFound: no such project or version, or not for this key.
        BadName: no alias can be called that, or an unusable reason.
    """
    projects.lock_project(session, principal, project_id)
    version = repository.by_number(session, project_id, number)
    if version is None:
        raise NotFound.of("version", number)
    now = repository.alias(session, project_id, _alias(name))
    if now is not None and now.version_id == version.id:
        return AliasView(now, version)
    return _move(session, principal, now, version, name, "promote", reason)


def rollback(
    session: Session,
    principal: Principal,
    project_id: UUID,
    name: str = PRODUCTION,
    *,
    reason: str | None = None,
) -> AliasView:
    """Undo the last promotion that is not yet undone; again goes back one further.

    Raises:
        NotFound: no such project, or not for this key.
        BadName: no alias can be called that, or an unusable reason.
        Conflict: nothing came before.
    """
    projects.lock_project(session, principal, project_id)
    now = repository.alias(session, project_id, _alias(name))
    history = standing_promotions(repository.moves(session, project_id, name))
    if len(history) < 2:
        raise Conflict(
            f"The alias {name!r} has no version to go back to.",
            fix="Promote the version that you want.",
            field="alias",
        )
    version = repository.get(session, history[-2])
    assert version is not None  # noqa: S101 - a version that was ever named is never deleted
    return _move(session, principal, now, version, name, "rollback", reason)


def standing_promotions(moves: Sequence[AliasMove]) -> list[UUID]:
    """Return the versions that were promoted and not rolled back since, the present one last."""
    standing: list[UUID] = []
    for move in moves:
        if move.kind == "promote":
            standing.append(move.to_version_id)
        else:
            standing.pop()
    return standing


def _move(
    session: Session,
    principal: Principal,
    now: Alias | None,
    version: ModelVersion,
    name: str,
    kind: MoveKind,
    reason: str | None,
) -> AliasView:
    record = AliasMove(
        project_id=version.project_id,
        alias=name,
        kind=kind,
        from_version_id=None if now is None else now.version_id,
        to_version_id=version.id,
        moved_by=principal.key_id,
        reason=None if reason is None else clean_text(reason, "reason", max_length=500),
    )
    audit.record(
        session,
        f"alias.{kind}",
        name,
        project=version.project_id,
        before=None if now is None else _named(repository.get(session, now.version_id)),
        after=_named(version) | {"reason": record.reason},
    )
    moved = repository.move(session, record)
    if name == PRODUCTION:
        project_rows.note_change(session, version.project_id)
    return AliasView(moved, version)


def _recorded(version: ModelVersion) -> dict[str, Any]:
    return audit.columns(version, "number", "digest", "artifact_sha256", "tuning_id")


def _named(version: ModelVersion | None) -> dict[str, Any]:
    return {} if version is None else {"version": version.number, "model": version.id}


def _alias(name: str) -> str:
    if not _ALIAS.fullmatch(name):
        raise BadName(
            f"The alias {name[:80]!r} is not a small letter followed by at most 63 small letters,"
            " digits, '-' or '_'.",
            fix="Use production, candidate, or a name of that form.",
            field="alias",
        )
    return name
