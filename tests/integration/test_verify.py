"""`verify` finds what is planted, and nothing else."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.errors import Conflict
from app.core.ids import new_id
from app.core.storage import LocalStorage
from app.core.sweep import sweep_orphans
from app.core.tables import (
    Alias,
    Batch,
    BatchImage,
    BatchPart,
    Feedback,
    Image,
    ModelVersion,
    PredictionRecord,
    Project,
    ProjectClass,
    Review,
    Serving,
    ShadowAnswer,
    Snapshot,
    SnapshotImage,
    Tuning,
)
from app.maintenance.findings import Findings
from app.maintenance.verify import verify
from models.artifact import Artifact
from models.progress import Progress
from tests.integration import tiny
from tests.integration.kept import fill
from tests.integration.test_projects import make

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def projects(database: Database, storage: LocalStorage, artifacts: list[Artifact]) -> list[UUID]:
    return fill(database, storage, artifacts)


def said(findings: Findings) -> str:
    assert all(finding.fix for finding in findings.found)
    return "\n".join(f"{found.check}: {found.where}: {found.problem}" for found in findings.found)


def test_all_is_well(database: Database, storage: LocalStorage, projects: list[UUID]) -> None:
    findings = verify(database, storage)
    assert said(findings) == ""
    assert findings.information == []
    assert findings.checked["artifacts"] == 4
    assert findings.checked["blobs"] == findings.checked["rows' blobs"] > 10


def path_of(storage: LocalStorage, sha256: str) -> Path:
    return storage.root / sha256[:2] / sha256[2:4] / sha256


def test_a_flipped_byte_and_a_missing_blob(
    database: Database, storage: LocalStorage, projects: list[UUID]
) -> None:
    with database.reading() as session:
        image, part = session.query(Image).first(), session.query(BatchPart).first()
        assert image
        assert part
    path = path_of(storage, image.sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path_of(storage, part.sha256).unlink()
    text = said(verify(database, storage))
    assert f"blob: blob {image.sha256}: Its bytes have another sha256; images.sha256" in text
    assert f"blob: blob {part.sha256}: batch_parts.sha256 names it, and it is not stored." in text
    assert text.count("\n") == 1


def test_orphans_are_no_fault_but_damaged_ones_are(
    database: Database, storage: LocalStorage, projects: list[UUID]
) -> None:
    whole, rotten = storage.put(b"whole"), storage.put(b"rotten")
    findings = verify(database, storage)
    assert findings.found == []
    assert "2 blobs of 0.0 MB are named by no row" in findings.information[0]
    path_of(storage, rotten).write_bytes(b"rotted")
    assert said(verify(database, storage)) == (
        f"blob: blob {rotten}: Its bytes have another sha256; no row names it."
    )
    assert storage.read(whole) == b"whole"


def test_an_artifact_of_another_digest_backbone_snapshot_or_order_of_classes(
    database: Database, storage: LocalStorage, projects: list[UUID], artifacts: list[Artifact]
) -> None:
    with database.unit_of_work() as session:
        rows = session.query(ModelVersion).order_by(ModelVersion.id).all()
        rows[0].artifact_sha256 = storage.put(artifacts[2].to_bytes())
        rows[1].backbone_digest = "sha256:other"
        rows[2].classes = rows[2].classes[::-1]
        rows[3].artifact_sha256 = storage.put(b"no artifact")
    text = said(verify(database, storage))
    where = f"version 1 of project {projects[0]}"
    assert f"artifact: {where}: Its digest is {artifacts[2].digest}; the row says" in text
    assert "version 2 of project" in text
    assert "It was tuned on another backbone than its row says." in text
    assert (
        f"classes: version 1 of project {projects[1]}: Its classes are good, 傷, unclear 🔍;"
        " its row lists unclear 🔍, 傷, good." in text
    )
    assert "is no tuned model, or is damaged" in text
    assert text.count("\n") == 3
    with database.unit_of_work() as session:
        session.execute(update(Snapshot).values(digest="sha256:" + "0" * 64))
    assert "another snapshot than its tuning says" in said(verify(database, storage))


def plant(database: Database, database_kind: str, change: Callable[[Session], object]) -> None:
    """Change rows in ways that the database itself would not let through."""
    with database.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        cursor = raw.cursor()
        if database_kind == "sqlite":
            cursor.execute("PRAGMA foreign_keys=OFF")
        else:
            cursor.execute("SET session_replication_role = replica")
            raw.commit()
        with Session(connection) as session:
            change(session)
            session.commit()
        if database_kind == "sqlite":
            cursor.execute("PRAGMA foreign_keys=ON")
        else:
            cursor.execute("RESET session_replication_role")
            raw.commit()
        cursor.close()


def test_a_foreign_key_that_leads_nowhere(
    database: Database, storage: LocalStorage, projects: list[UUID], database_kind: str
) -> None:
    nowhere = update(Image).values(class_id=new_id())
    plant(database, database_kind, lambda session: session.execute(nowhere))
    assert "foreign key: images: 6 rows of images: class_id refers to nothing in classes." in said(
        verify(database, storage)
    )


def alias_of_another(session: Session) -> None:
    alias = session.query(Alias).first()
    assert alias
    other = session.query(ModelVersion).where(ModelVersion.project_id != alias.project_id).first()
    assert other
    alias.version_id = other.id


def class_of_another(session: Session) -> None:
    image = session.query(Image).first()
    assert image
    other = session.query(ProjectClass).where(ProjectClass.project_id != image.project_id).one()
    image.class_id = other.id


def image_of_another(session: Session) -> None:
    entry = session.query(SnapshotImage).first()
    assert entry
    mine = session.get_one(Image, entry.image_id)
    other = session.query(Image).where(Image.project_id != mine.project_id).first()
    assert other
    entry.image_id = other.id


def prediction_of_another(session: Session) -> None:
    row = session.query(PredictionRecord).first()
    assert row
    for table in (ShadowAnswer, Feedback, Review):  # what was said of it would contradict it, too
        session.query(table).delete()
    row.project_id = session.query(Project).where(Project.id != row.project_id).one().id


def state(
    table: type[Tuning | Batch], *, was: str, **values: object
) -> Callable[[Session], object]:
    def change(session: Session) -> None:
        row = session.query(table).where(table.state == was).first()
        assert row
        for name, value in values.items():
            setattr(row, name, value)

    return change


def without(table: type[BatchPart | BatchImage | SnapshotImage]) -> Callable[[Session], object]:
    def change(session: Session) -> None:
        session.delete(session.query(table).first())

    return change


def part_twice(session: Session) -> None:
    part = session.query(BatchPart).first()
    assert part
    session.add(BatchPart(batch_id=part.batch_id, position=1, count=1, sha256=part.sha256))


def serving_behind(session: Session) -> None:
    session.get_one(Serving, 1).revision = 0


FAULTS: dict[str, tuple[Callable[[Session], object], str]] = {
    "alias": (alias_of_another, "alias: aliases "),
    "class": (class_of_another, "Its class belongs to another project."),
    "image": (image_of_another, "Its image belongs to another project."),
    "prediction": (prediction_of_another, "Its version belongs to another project."),
    "no lease": (state(Tuning, was="running", lease_until=None), "nobody holds a lease"),
    "no claim": (state(Tuning, was="running", attempt=0), "it was never claimed"),
    "leased": (
        state(Batch, was="succeeded", lease_until=NOW, lease_owner="w"),
        "ended, and somebody holds a lease",
    ),
    "queued": (state(Tuning, was="running", state="queued"), "queued, and somebody holds a lease"),
    "no end": (state(Tuning, was="failed", finished_at=None), "ended, and nobody knows when"),
    "no reason": (state(Tuning, was="failed", failure=None), "failed, and for no reason"),
    "ended early": (state(Tuning, was="running", finished_at=NOW), "it has a time of its end"),
    "unmade": (state(Tuning, was="succeeded", state="cancelled"), "did not succeed"),
    "no part": (without(BatchPart), "It has no result."),
    "no batch image": (without(BatchImage), "It has 1 of its 2 images."),
    "no entry": (without(SnapshotImage), "It has 2 images; it was frozen with 3."),
    "part twice": (part_twice, "leave something out, or have it twice"),
    "serving": (serving_behind, "Gateways would not learn of changes."),
}


@pytest.mark.parametrize("name", FAULTS)
def test_rows_that_contradict_each_other(
    database: Database, storage: LocalStorage, projects: list[UUID], name: str
) -> None:
    change, sentence = FAULTS[name]
    with database.unit_of_work() as session:
        change(session)
    text = said(verify(database, storage))
    assert sentence in text
    assert "\n" not in text


def test_the_record_of_changes(
    database: Database, storage: LocalStorage, projects: list[UUID]
) -> None:
    with database.unit_of_work() as session:
        session.execute(text("UPDATE audit_head SET sequence = sequence + 1"))
    found = said(verify(database, storage))
    assert "audit: record of changes: It has" in found
    with database.unit_of_work() as session:
        session.execute(text("DELETE FROM audit_head"))
    assert "The row that holds its end is gone." in said(verify(database, storage))


def test_a_sqlite_file_that_is_damaged(
    database: Database, storage: LocalStorage, projects: list[UUID], database_kind: str
) -> None:
    if database_kind != "sqlite":
        pytest.skip("PostgreSQL checks its pages itself")
    with database.unit_of_work() as session:
        session.execute(text("PRAGMA writable_schema=ON"))
        session.execute(text("DELETE FROM sqlite_master WHERE name = 'ix_images_sha256'"))
    database.close()
    assert "database: SQLite file: Its own check says: " in said(verify(database, storage))


def test_a_database_of_another_revision(
    database: Database, storage: LocalStorage, projects: list[UUID]
) -> None:
    with database.unit_of_work() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    assert "database: schema: It is at revision '0003'" in said(verify(database, storage))
    with database.unit_of_work() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="newer version"):
        verify(database, storage)


def test_what_is_deleted_while_verify_looks_is_no_fault(
    database: Database, storage: LocalStorage, projects: list[UUID]
) -> None:
    def phases(title: str) -> Progress:
        if title == "Checking blobs":
            with database.unit_of_work() as session:
                session.execute(text("DELETE FROM tunings"))
                session.execute(text("DELETE FROM projects"))
            assert sweep_orphans(database, storage, min_age=0) > 10
        return lambda done, total: None

    assert said(verify(database, storage, phases=phases)) == ""


def test_verify_beside_uploads_finds_nothing(
    client: TestClient, database: Database, storage: LocalStorage, projects: list[UUID]
) -> None:
    project, stop = make(client)["id"], threading.Event()

    def upload() -> int:
        number = 0
        while not stop.is_set():
            files = [("files", (f"{number}.png", tiny.photograph(0, number)))]
            response = client.post(
                f"/v1/projects/{project}/images", files=files, data={"label": "scratch"}
            )
            assert response.status_code == 200, response.text
            if number % 2:
                image = response.json()["results"][0]["image"]
                assert client.delete(f"/v1/images/{image}").status_code == 204
            number += 1
            sweep_orphans(database, storage, min_age=0.5)
        return number

    with ThreadPoolExecutor() as pool:
        running = pool.submit(upload)
        try:
            for _ in range(3):
                assert said(verify(database, storage)) == ""
        finally:
            stop.set()
        assert running.result() > 0
