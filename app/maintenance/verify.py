"""Verify: is everything there that rows speak of, and is it what they say? Reads only.

The service may run. Rows are looked at in one state of the database. Blobs come and go meanwhile,
so what seems to be wrong with one is looked at again before it is reported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

from app import migrations
from app.audit.verify import verify as verify_record
from app.core.database import Database
from app.core.errors import Damaged, NotFound, Unavailable
from app.core.storage import Storage
from app.core.tables import ModelVersion, Snapshot, Tuning
from app.maintenance.findings import Finding, Findings
from app.maintenance.references import broken_references, named_blobs
from app.maintenance.rows import columns_of
from app.maintenance.verify_rows import check_rows
from models.artifact import Artifact
from models.errors import ArtifactMismatch, DamagedArtifact
from models.progress import Phases, Progress, no_phases

_FROM_BACKUP = (
    "Take it from a backup: `tar -xf FILE blobs/{sha256}`, and put it where `docs/backup.md` says."
)


class _Version(NamedTuple):
    """What rows say of a version's artifact."""

    id: UUID
    project_id: UUID
    number: int
    artifact_sha256: str
    digest: str
    backbone_digest: str
    classes: list[Any]
    snapshot: str
    snapshot_classes: list[Any]

    @property
    def where(self) -> str:
        """What a finding calls it."""
        return f"version {self.number} of project {self.project_id}"


@dataclass(frozen=True)
class _State:
    """What the rows name: blobs by the first column that does, and versions."""

    blobs: dict[str, str]
    versions: list[_Version]


def verify(database: Database, storage: Storage, *, phases: Phases = no_phases) -> Findings:
    """Compare rows, blobs and artifacts with each other and with their hashes.

    Raises:
        Conflict: a newer version has migrated the database.
        Unavailable: the database cannot be reached.
    """
    findings = Findings()
    with database.reading_one_state() as session:
        progress = phases("Checking rows")
        progress(0, 1)
        findings.found += _check_database(session)
        state = _state(session)
        current = migrations.revision_of(session.connection()) == migrations.head()
        progress(1, 1)
    if current and database.audit_key_file is not None:
        findings.found += _check_record(database, phases("Checking the record of changes"))
    findings.checked["rows' blobs"] = len(state.blobs)
    suspects = _check_blobs(state, storage, findings, phases)
    suspects += _check_artifacts(state, storage, findings, phases)
    if suspects:
        findings.found += _look_again(database, storage, suspects)
    return findings


def _check_database(session: Session) -> list[Finding]:
    connection = session.connection()
    revision = migrations.revision_of(connection)
    migrations.require_known(revision)
    found = [*_integrity(connection), *_references(connection)]
    if revision == migrations.head():
        return [*found, *check_rows(session)]
    return [
        *found,
        Finding(
            "database",
            "schema",
            f"It is at revision {revision!r}; this version works with {migrations.head()!r}.",
            "Run `shotline migrate`, then verify again: not all could be checked.",
        ),
    ]


def _check_record(database: Database, progress: Progress) -> Iterator[Finding]:
    try:
        problems = verify_record(database, on_progress=progress).problems
        fix = (
            "See `shotline audit verify`; after a restore, `shotline audit accept-head` lets the"
            " record go on."
        )
    except (Damaged, Unavailable) as error:
        problems, fix = [error.problem], error.fix
    for problem in problems:
        yield Finding("audit", "record of changes", problem, fix)


def _integrity(connection: Connection) -> Iterator[Finding]:
    """Let SQLite look at its own pages and indexes; PostgreSQL has `pg_amcheck` for that."""
    if connection.dialect.name != "sqlite":
        return
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield Finding(
                "database",
                "SQLite file",
                f"Its own check says: {line}.",
                "Stop the service and restore the last backup; check the disk.",
            )


def _references(connection: Connection) -> Iterator[Finding]:
    for broken in broken_references(connection, columns_of(connection)):
        yield Finding(
            "foreign key",
            broken.table,
            broken.problem,
            "Restore a backup, or delete these rows by hand; no code of Shotline leaves such rows.",
        )


def _state(session: Session) -> _State:
    columns = columns_of(session.connection())
    blobs = named_blobs(session.connection(), columns)
    if "model_versions" not in columns:
        return _State(blobs, [])
    # Columns that every revision has.
    rows = session.execute(
        sa.select(
            ModelVersion.id,
            ModelVersion.project_id,
            ModelVersion.number,
            ModelVersion.artifact_sha256,
            ModelVersion.digest,
            ModelVersion.backbone_digest,
            ModelVersion.classes,
            Snapshot.digest,
            Snapshot.classes,
        )
        .join(Tuning, Tuning.id == ModelVersion.tuning_id)
        .join(Snapshot, Snapshot.id == Tuning.snapshot_id)
        .order_by(ModelVersion.project_id, ModelVersion.number)
    )
    return _State(blobs, [_Version(*row) for row in rows])


class _Suspect(NamedTuple):
    """Something that seems to be wrong with a blob; `version` where it is an artifact."""

    sha256: str
    finding: Finding
    version: _Version | None = None


def _check_blobs(
    state: _State, storage: Storage, findings: Findings, phases: Phases
) -> list[_Suspect]:
    """Read every blob that is stored; return those that are not whole, or not there."""
    progress = phases("Checking blobs")
    stored = {blob.sha256: blob.size for blob in storage.blobs()}
    suspects = []
    progress(0, len(stored))
    for done, sha256 in enumerate(stored, start=1):
        if suspect := _check_blob(sha256, state.blobs.get(sha256), storage):
            suspects.append(suspect)
        progress(done, len(stored))
    for sha256 in state.blobs.keys() - stored.keys():
        if suspect := _check_blob(sha256, state.blobs[sha256], storage):
            suspects.append(suspect)
    findings.checked["blobs"] = len(stored)
    orphans = [size for sha256, size in stored.items() if sha256 not in state.blobs]
    if orphans:
        findings.information.append(
            f"{len(orphans)} blobs of {sum(orphans) / 1e6:.1f} MB are named by no row: uploads"
            " under way, or left by something deleted. The gateway removes them after an hour."
        )
    return suspects


def _check_blob(sha256: str, named_by: str | None, storage: Storage) -> _Suspect | None:
    where = f"blob {sha256}"
    fix = _FROM_BACKUP.format(sha256=sha256)
    if named_by is None:
        fix = "No row names it: delete the file, else an upload of the same bytes would find it."
    try:
        storage.read(sha256)
    except NotFound:
        if named_by is None:
            return None  # removed while we look, or a file that is no blob
        problem = f"{named_by} names it, and it is not stored."
    except Damaged:
        problem = f"Its bytes have another sha256; {named_by or 'no row'} names it."
    except OSError as error:
        problem = f"It cannot be read: {error.strerror or error}."
    else:
        return None
    return _Suspect(sha256, Finding("blob", where, problem, fix))


def _check_artifacts(
    state: _State, storage: Storage, findings: Findings, phases: Phases
) -> list[_Suspect]:
    progress = phases("Checking artifacts")
    progress(0, len(state.versions))
    suspects: list[_Suspect] = []
    for done, version in enumerate(state.versions, start=1):
        suspects += _check_artifact(version, storage)
        progress(done, len(state.versions))
    findings.checked["artifacts"] = len(state.versions)
    return suspects


def _check_artifact(version: _Version, storage: Storage) -> Iterator[_Suspect]:
    """Compare an artifact with its rows; one that cannot be read is a blob's fault."""
    try:
        data = storage.read(version.artifact_sha256)
    except (NotFound, Damaged, OSError):
        return
    try:
        artifact = Artifact.from_bytes(data)
    except (DamagedArtifact, ArtifactMismatch) as error:
        yield _suspect(version, error.problem)
        return
    header = artifact.header
    if artifact.digest != version.digest:
        yield _suspect(version, f"Its digest is {artifact.digest}; the row says {version.digest}.")
    if header.backbone_digest != version.backbone_digest:
        yield _suspect(version, "It was tuned on another backbone than its row says.")
    if header.snapshot != version.snapshot:
        yield _suspect(version, "It was tuned on another snapshot than its tuning says.")
    classes = [spec.model_dump() for spec in header.classes]
    for what, listed in (("row", version.classes), ("snapshot", version.snapshot_classes)):
        if classes != listed:
            yield _suspect(
                version,
                f"Its classes are {_names(classes)}; its {what} lists {_names(listed)}.",
                check="classes",
            )


def _suspect(version: _Version, problem: str, *, check: str = "artifact") -> _Suspect:
    finding = Finding(
        check,
        version.where,
        problem,
        "Promote another version; then restore a backup, or tune again.",
    )
    return _Suspect(version.artifact_sha256, finding, version)


def _names(classes: Sequence[Any]) -> str:
    return ", ".join(str(spec.get("name") if isinstance(spec, dict) else spec) for spec in classes)


def _look_again(
    database: Database, storage: Storage, suspects: Sequence[_Suspect]
) -> Iterator[Finding]:
    """Yield what is still wrong: what was deleted meanwhile is no fault, nor is its blob."""
    with database.reading_one_state() as session:
        state = _state(session)
    versions = {version.id: version for version in state.versions}
    for suspect in suspects:
        if suspect.version is not None:
            if versions.get(suspect.version.id) == suspect.version:
                yield suspect.finding
            continue
        found = _check_blob(suspect.sha256, state.blobs.get(suspect.sha256), storage)
        if found is not None:
            yield found.finding
