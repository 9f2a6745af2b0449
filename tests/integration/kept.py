"""A service with something in every table, and what it holds, to be compared."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import insert

from app.core.access import Principal
from app.core.clock import utc_now
from app.core.database import Database
from app.core.ids import new_id
from app.core.storage import LocalStorage
from app.core.tables import (
    AuditEntry,
    AuditHead,
    Batch,
    BatchImage,
    BatchPart,
    Examination,
    Feedback,
    FoundFinding,
    GateRun,
    Image,
    PredictionRecord,
    Project,
    ProjectClass,
    Review,
    SearchTrial,
    ShadowAnswer,
    Snapshot,
    SnapshotImage,
    Table,
    Tuning,
)
from app.keys.service import create_key
from app.maintenance.rows import columns_of, read_rows
from app.registry import service as registry
from models.artifact import Artifact
from tests.integration import tiny

BOX = Principal(None, "the box", "admin")
CAPTURED = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)


def fill(database: Database, storage: LocalStorage, artifacts: Sequence[Artifact]) -> list[UUID]:
    """Make two projects with rows in every table; return their ids."""
    projects = [_project(database, storage, artifacts, number) for number in range(2)]
    with database.unit_of_work() as session:
        create_key(session, name="línea 3", role="operator", project_id=projects[0])
        if session.query(AuditEntry).count() == 0:
            mac = "ab" * 32
            session.execute(
                insert(AuditEntry).values(
                    sequence=1, at=utc_now(), actor="me", action="project.create", kind="project",
                    after='{"name":"x"}', mac=mac,
                )
            )  # fmt: skip
            session.query(AuditHead).update({"sequence": 1, "mac": mac, "key_id": "0" * 16})
    return projects


def _project(
    database: Database, storage: LocalStorage, artifacts: Sequence[Artifact], number: int
) -> UUID:
    with database.unit_of_work() as session:
        name = f"cap {number} 🔍"
        project = Project(name=name, name_key=name, view={"resize": "fit", "roi": [0, 0.1, 1, 1]})
        session.add(project)
        session.flush()
        klass = ProjectClass(
            project_id=project.id, position=0, name="傷", name_key="傷", prompt_name="scratch",
            role="ng",
        )  # fmt: skip
        session.add(klass)
        session.flush()
        images = []
        for index in range(3):
            data = tiny.photograph(number, index)
            images.append(
                Image(
                    project_id=project.id, class_id=klass.id, sha256=storage.put(data),
                    file_name=f"{index}.png", format="png", width=40, height=40,
                    size_bytes=len(data), group=f"part {index}",
                    deleted_at=utc_now() if index == 2 else None,
                )
            )  # fmt: skip
        session.add_all(images)
        session.flush()
        versions = [
            tiny.add_artifact(session, storage, project.id, artifact) for artifact in artifacts[:2]
        ]
        snapshot = session.query(Snapshot).where(Snapshot.project_id == project.id).one()
        snapshot.image_count = len(images)
        session.add_all(
            SnapshotImage(
                snapshot_id=snapshot.id, position=position, image_id=image.id,
                sha256=image.sha256, label=0, split="train", group=image.group,
            )
            for position, image in enumerate(images)
        )  # fmt: skip
        for row in _jobs(storage, project.id, snapshot.id, versions[0].id):
            session.add(row)
            session.flush()  # what refers to it comes behind it
        for version in (1, 2):
            registry.promote(session, BOX, project.id, "production", version, reason="it is better")
        made = _prediction(storage, project.id, versions[1].id, artifacts[1].digest)
        session.add(made)
        session.flush()
        session.add_all(_looked_at(project.id, versions[0].id, made.id, images[0].id))
        return project.id


def _looked_at(project: UUID, version: UUID, prediction: UUID, image: UUID) -> list[Table]:
    return [
        GateRun(
            project_id=project, version_id=version, state="succeeded", attempt=1,
            finished_at=utc_now(), result={"images": 2},
        ),
        ShadowAnswer(
            prediction_id=prediction, project_id=project, version_id=version, decision="ok",
            label="good", probability=0.7, probabilities=[], differs=True,
        ),
        Feedback(
            prediction_id=prediction, project_id=project, label="傷", note="seen twice",
            replaced_at=utc_now(),
        ),
        Feedback(prediction_id=prediction, project_id=project, label="good"),
        Review(
            prediction_id=prediction, project_id=project, action="relabel", label="good",
            image_id=image,
        ),
    ]  # fmt: skip


def _jobs(storage: LocalStorage, project: UUID, snapshot: UUID, version: UUID) -> list[Table]:
    tuning = Tuning(
        id=new_id(), project_id=project, snapshot_id=snapshot, state="running",
        recipe={"lr": 0.1}, seed=2**40, view={}, backbone="starter", attempt=1,
        lease_owner="worker 1", lease_until=utc_now(), started_at=utc_now(),
        checkpoint=storage.put(project.bytes),
    )  # fmt: skip
    failed = Tuning(
        project_id=project, snapshot_id=snapshot, state="failed", recipe={}, seed=1, view={},
        backbone="starter", attempt=3, losses=3, finished_at=utc_now(),
        failure={"problem": "It was lost.", "fix": "Try again."},
    )  # fmt: skip
    batch = Batch(
        id=new_id(), project_id=project, model_version_id=version, state="succeeded", attempt=1,
        image_count=2, finished_at=utc_now(),
    )  # fmt: skip
    trial = SearchTrial(
        project_id=project, tuning_id=tuning.id, state="succeeded", number=0, params={"lr": 0.2},
        folds=[0.5], result={"state": "complete", "macro": 0.5}, hits="01", finished_at=utc_now(),
    )  # fmt: skip
    examination = Examination(
        id=new_id(), project_id=project, state="succeeded", digest="sha256:ab", image_count=2,
        view={}, backbone="starter", finished_at=utc_now(),
    )  # fmt: skip
    finding = FoundFinding(
        examination_id=examination.id, kind="blur", severity="warning", content={"images": []}
    )
    image = storage.put(tiny.photograph(3, 7))
    return [
        tuning,
        trial,
        failed,
        examination,
        finding,
        batch,
        BatchImage(batch_id=batch.id, position=0, name="0.png", sha256=image),
        BatchImage(batch_id=batch.id, position=1, name="1.txt", problem={"detail": "no image"}),
        BatchPart(batch_id=batch.id, position=0, count=2, sha256=storage.put(b"{}\n" * 2)),
    ]


def _prediction(
    storage: LocalStorage, project: UUID, version: UUID, digest: str
) -> PredictionRecord:
    data = tiny.photograph(2, project.int % 1000)
    return PredictionRecord(
        id=new_id(), project_id=project, model_version_id=version, model_number=2,
        model_digest=digest, image_id="cam3-1", captured_at=CAPTURED, decision="ng", label="傷",
        probability=0.1 + 0.2, probabilities=[{"label": "傷", "probability": 0.1 + 0.2}],
        prediction_set=["傷"], timings_ms={"total": 21.5}, image_sha256=storage.put(data),
        image_bytes=len(data),
    )  # fmt: skip


def contents(database: Database) -> dict[str, list[str]]:
    """Return all rows of all tables, in an order of their own."""
    with database.reading_one_state() as session:
        connection = session.connection()
        return {
            table: sorted(
                json.dumps(row, sort_keys=True) for row in read_rows(connection, table, columns)
            )
            for table, columns in columns_of(connection).items()
        }


def blobs(storage: LocalStorage) -> set[str]:
    return {blob.sha256 for blob in storage.blobs()}
