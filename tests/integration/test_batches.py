"""Batches over HTTP, their states and their runs; the worker itself is in `test_worker`."""

import csv
import io
import json
import sys
from collections.abc import Callable
from typing import Any, BinaryIO
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import Response
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.batches.states import Progress, note_part
from app.core.database import Database, database_now
from app.core.ids import new_id
from app.core.jobs import BATCHES, TUNINGS, Failure, JobStates, Lease
from app.core.queue import BATCH, TUNE, InMemoryQueue
from app.core.reaper import reap
from app.core.settings import BatchSettings, LimitSettings, Settings, TuningSettings
from app.core.storage import LocalStorage
from app.core.sweep import sweep_orphans
from app.core.tables import Batch, BatchImage, BatchPart, ModelVersion
from models.artifact import Artifact
from tests.integration import serving, test_tunings, tiny
from tests.integration.conftest import MakeClient
from tests.integration.files import tar_of, zip_of
from tests.integration.problems import assert_problem
from tests.integration.serving import Served
from worker import batch_run, exit_codes
from worker.batch_run import BatchRun
from worker.child import GaveWay
from worker.supervisor import Supervisor

FAILURE = Failure(problem="It broke.", fix="Mend it.")


@pytest.fixture
def limits() -> LimitSettings:
    return LimitSettings(
        upload_bytes=1_000_000, file_bytes=60_000, upload_files=20, archive_bytes=150_000_000
    )


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"batch": BatchSettings(part_images=4)})


@pytest.fixture
def served(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    return serving.serve(client, database, storage, artifacts[0])


def photographs(count: int) -> dict[str, bytes]:
    return {f"{n:03}.png": tiny.photograph(n % 3, n) for n in range(count)}


def send(
    client: TestClient,
    project: UUID,
    data: bytes,
    content_type: str = "application/zip",
    **query: Any,
) -> Response:
    return client.post(
        f"/v1/projects/{project}/batches",
        content=data,
        headers={"content-type": content_type},
        params=query,
    )


def start(client: TestClient, project: UUID, count: int = 10, **query: Any) -> UUID:
    response = send(client, project, zip_of(photographs(count)), **query)
    assert response.status_code == 202, response.text
    return UUID(response.json()["id"])


def claim(database: Database, batch: UUID, seconds: float = 30.0) -> Lease:
    with database.unit_of_work() as session:
        lease = BATCHES.claim(session, batch, owner="test", seconds=seconds)
    assert lease is not None
    return lease


def row_of(database: Database, batch: UUID) -> Batch:
    with database.reading() as session:
        return session.scalars(select(Batch).where(Batch.id == batch)).one()


def run_here(settings: Settings, database: Database, storage: LocalStorage, batch: UUID) -> int:
    """Do in this process what a worker's child does."""
    return BatchRun(claim(database, batch), settings, database, storage).run()


def lines_of(client: TestClient, batch: UUID) -> list[dict[str, Any]]:
    response = client.get(f"/v1/batches/{batch}/results", params={"format": "ndjson"})
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


# --- asked for


PACKED: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "application/zip": zip_of,
    "application/x-tar": tar_of,
    "application/gzip": lambda files: tar_of(files, "w:gz"),
}


@pytest.mark.parametrize("content_type", PACKED)
def test_an_archive_is_stored_frozen_and_queued(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    queue: InMemoryQueue,
    served: Served,
    content_type: str,
) -> None:
    files = photographs(3) | {
        "sub/傷.png": tiny.photograph(1, 9), ".DS_Store": b"x", "Thumbs.db": b"x",
    }  # fmt: skip
    response = send(client, served.project, PACKED[content_type](files), content_type, top_k=2)
    assert response.status_code == 202, response.text
    batch = response.json()
    assert response.headers["location"] == f"/v1/batches/{batch['id']}"
    assert (batch["state"], batch["top_k"]) == ("queued", 2)
    assert (batch["model"]["id"], batch["model"]["version"]) == (str(served.model), 1)
    assert batch["progress"] == {
        "done": 0, "total": 4, "failed": 0, "images_per_second": None, "seconds_left": None,
    }  # fmt: skip
    assert queue.sent == [(BATCH, (batch["id"],))]
    with database.reading() as session:
        rows = session.scalars(select(BatchImage).order_by(BatchImage.position)).all()
    assert [row.name for row in rows] == [*photographs(3), "sub/傷.png"]
    assert [storage.read(row.sha256 or "") for row in rows] == list(files.values())[:4]
    assert client.get(f"/v1/batches/{batch['id']}").json() == batch
    listed = client.get(f"/v1/projects/{served.project}/batches").json()
    assert listed == {"items": [batch], "next_cursor": None}


def test_what_was_swept_while_the_batch_came_in_is_not_answered_for(
    app: FastAPI, client: TestClient, served: Served, queue: InMemoryQueue
) -> None:
    class Swept(LocalStorage):
        def put(self, data: bytes | BinaryIO) -> str:
            sha256 = super().put(data)
            assert self.remove_old(sha256, 0)
            return sha256

    app.state.gateway.storage = Swept(app.state.gateway.storage.root)
    response = send(client, served.project, zip_of(photographs(2)))
    assert_problem(response, 503, "unavailable", names="swept")
    assert queue.sent == []


def test_many_files_of_a_form(client: TestClient, database: Database, served: Served) -> None:
    files = [("files", (name, data)) for name, data in photographs(3).items()]
    response = client.post(f"/v1/projects/{served.project}/batches", files=files)
    assert response.status_code == 202, response.text
    assert response.json()["progress"]["total"] == 3
    packed = client.post(
        f"/v1/projects/{served.project}/batches",
        files={"archive": ("a.zip", zip_of(photographs(2)))},
    )
    assert packed.json()["progress"]["total"] == 2


def test_batches_come_in_pages(client: TestClient, served: Served) -> None:
    made = [str(start(client, served.project, count=1)) for _ in range(3)]
    address = f"/v1/projects/{served.project}/batches"
    first = client.get(address, params={"limit": 2}).json()
    rest = client.get(address, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [b["id"] for b in first["items"] + rest["items"]] == made
    assert rest["next_cursor"] is None


def test_the_version_is_what_was_in_production_then(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    served: Served,
) -> None:
    (other,) = serving.add_versions(database, storage, served.project, [artifacts[1]])
    batch = start(client, served.project, count=2)
    named = start(client, served.project, count=2, model=other)
    serving.promote(client, served.project, 2)
    for one, version in ((batch, 1), (named, 2)):
        assert run_here(settings, database, storage, one) == exit_codes.DONE
        assert {line["model"]["version"] for line in lines_of(client, one)} == {version}


def test_nothing_in_production(client: TestClient, queue: InMemoryQueue) -> None:
    project = serving.make_project(client)
    response = send(client, project, zip_of(photographs(1)))
    assert_problem(response, 409, "conflict", names=str(project), field="model")
    assert queue.sent == []


def test_a_version_that_is_not_this_projects(client: TestClient, served: Served) -> None:
    elsewhere = serving.make_project(client)
    for project, model in ((elsewhere, served.model), (served.project, new_id())):
        response = send(client, project, zip_of(photographs(1)), model=model)
        assert_problem(response, 404, "not-found", names=str(model), field="model")
    assert_problem(send(client, served.project, b"", model="x"), 422, "bad-input", field="model")
    assert_problem(send(client, served.project, b"", top_k=0), 422, "bad-input", field="top_k")


def test_bodies_that_are_refused_whole(
    client: TestClient, database: Database, queue: InMemoryQueue, served: Served
) -> None:
    project = served.project
    assert_problem(send(client, project, zip_of({})), 422, "bad-upload", field="archive")
    assert_problem(send(client, project, zip_of({".x": b"x"})), 422, "bad-upload")
    assert_problem(send(client, project, b"no archive"), 422, "bad-upload", field="archive")
    assert_problem(send(client, project, zip_of({"../a": b"x"})), 422, "bad-upload", names="../a")
    bomb = zip_of({f"{n}.png": bytes(70 << 20) for n in range(1)})
    assert_problem(send(client, project, bomb), 413, "too-large", names="times as many")
    many = zip_of({f"{n}.png": b"x" for n in range(21)})
    assert_problem(send(client, project, many), 413, "too-large", names="20 files")
    assert_problem(send(client, project, bytes(1_000_001)), 413, "too-large", field="body")
    kind = send(client, project, b"{}", "application/json")
    assert_problem(kind, 415, "unsupported-type", field="Content-Type")
    address = f"/v1/projects/{project}/batches"
    form = client.post(address, files={"f": ("a.png", b"x")}, data={"label": "good"})
    assert_problem(form, 422, "bad-input", names="label", field="label")
    empty = client.post(address, files=[("label", (None, b"good"))])
    assert_problem(empty, 422, "bad-input", names="label")
    with database.reading() as session:
        assert session.scalars(select(Batch)).all() == []
    assert queue.sent == []


def test_roles_and_strangers(
    client: TestClient, make_client: MakeClient, served: Served, database: Database
) -> None:
    viewer, operator = make_client("viewer"), make_client("operator")
    refused = send(viewer, served.project, zip_of(photographs(1)))
    assert_problem(refused, 403, "forbidden", names="operator")
    batch = start(operator, served.project, count=1)
    assert viewer.get(f"/v1/batches/{batch}").status_code == 200
    assert_problem(viewer.post(f"/v1/batches/{batch}/cancel"), 403, "forbidden")
    assert_problem(viewer.delete(f"/v1/batches/{batch}"), 403, "forbidden")
    stranger = make_client("operator", serving.make_project(client))
    for response in (
        stranger.get(f"/v1/batches/{batch}"),
        stranger.get(f"/v1/batches/{batch}/results"),
        stranger.post(f"/v1/batches/{batch}/cancel"),
        stranger.delete(f"/v1/batches/{batch}"),
        stranger.get(f"/v1/projects/{served.project}/batches"),
        send(stranger, served.project, zip_of(photographs(1))),
        client.get(f"/v1/batches/{new_id()}"),
    ):
        assert_problem(response, 404, "not-found")


# --- decided on


def test_a_run_decides_as_predict_does_whatever_else_is_in_the_archive(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
) -> None:
    good = photographs(9)
    files = good | {"note.txt": b"hello", "large.png": bytes(60_001), "=1.png": good["000.png"]}
    batch = UUID(send(client, served.project, zip_of(files)).json()["id"])
    assert run_here(settings, database, storage, batch) == exit_codes.DONE
    shown = client.get(f"/v1/batches/{batch}").json()
    assert shown["state"] == "succeeded"
    assert shown["finished_at"]
    assert (shown["progress"]["done"], shown["progress"]["failed"]) == (12, 2)
    assert shown["progress"]["images_per_second"] > 0
    assert shown["progress"]["seconds_left"] is None
    with database.reading() as session:
        parts = session.scalars(select(BatchPart).order_by(BatchPart.position)).all()
    assert [(part.position, part.count) for part in parts] == [(0, 4), (4, 4), (8, 4)]

    lines = lines_of(client, batch)
    assert [(line["index"], line["name"]) for line in lines] == list(enumerate(files))
    assert "60001" in lines[10]["error"]["problem"]
    assert lines[9]["error"]["fix"]
    sent = [("image", (name, data)) for name, data in good.items()]
    answers = client.post(served.predict, files=sent).json()["results"]
    for line, answer in zip(lines, answers, strict=False):
        assert (line["decision"], line["label"]) == (answer["decision"], answer["label"])
        assert line["prediction_set"] == answer["prediction_set"]
        assert line["model"] == answer["model"]
        for mine, theirs in zip(line["probabilities"], answer["probabilities"], strict=True):
            assert mine["label"] == theirs["label"]
            assert mine["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
    assert lines[11]["label"] == lines[0]["label"]


def test_the_three_forms_agree(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    files = photographs(6) | {"broken.png": b"\x89PNG"}
    batch = UUID(send(client, served.project, zip_of(files), top_k=2).json()["id"])
    run_here(settings, database, storage, batch)
    lines = lines_of(client, batch)
    assert {len(line["probabilities"]) for line in lines[:6]} == {2}
    answer = client.get(f"/v1/batches/{batch}/results")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert f"batch-{batch}.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode(), newline="")))
    whole = client.get(f"/v1/batches/{batch}/results", params={"format": "parquet"})
    assert whole.headers["content-type"] == "application/vnd.apache.parquet"
    table = parquet.read_table(io.BytesIO(whole.content)).to_pylist()
    assert len(lines) == len(rows) == len(table) == 7
    for line, row, typed in zip(lines, rows, table, strict=True):
        assert str(line["index"]) == row["index"] == str(typed["index"])
        assert line["name"] == row["name"] == typed["name"]
        assert line["model"]["version"] == int(row["version"]) == typed["version"]
        assert line.get("label") == (row["label"] or None) == typed["label"]
        assert line.get("decision") == (row["decision"] or None) == typed["decision"]
        for entry in line.get("probabilities", []):
            name = f"probability_{entry['label']}"
            assert row[name] == f"{entry['probability']:.6f}"
            assert typed[name] == entry["probability"]
        assert bool(row["error"]) == ("error" in line)
        assert (row["error"] or None) == typed["error"]


def test_a_run_told_to_stop_goes_on_where_it_stood(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
) -> None:
    batch = start(client, served.project)
    for part in (1, 2):
        lease = claim(database, batch)
        run = BatchRun(lease, settings, database, storage)
        run.stop()
        assert run.run() == exit_codes.HANDED_BACK
        row = row_of(database, batch)
        assert row.progress is not None
        assert row.progress["done"] == 4 * part
        assert [line["index"] for line in lines_of(client, batch)] == list(range(4 * part))
        with database.unit_of_work() as session:
            assert BATCHES.give_back(session, lease, FAILURE, max_attempts=None) == "queued"
    assert run_here(settings, database, storage, batch) == exit_codes.DONE
    assert [line["index"] for line in lines_of(client, batch)] == list(range(10))
    assert row_of(database, batch).attempt == 3


def test_a_waiting_tuning_is_given_way_to_after_a_part(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
) -> None:
    tuning = test_tunings.start(client, test_tunings.make_project(client, "good", "bad"))
    batch = start(client, served.project)
    assert run_here(settings, database, storage, batch) == exit_codes.GAVE_WAY
    assert [line["index"] for line in lines_of(client, batch)] == list(range(4))
    client.post(f"/v1/tunings/{tuning}/cancel")
    lease = Lease(batch, 1)
    with database.unit_of_work() as session:
        BATCHES.give_back(session, lease, FAILURE, max_attempts=None)
    assert run_here(settings, database, storage, batch) == exit_codes.DONE


def test_a_version_of_another_backbone_fails_and_says_so(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    batch = start(client, served.project, count=2)
    other = tiny.write_backbone(tmp_path_factory.mktemp("other"), seed=1)
    backbone = settings.backbone.model_copy(update={"source": other})
    changed = settings.model_copy(update={"backbone": backbone})
    assert run_here(changed, database, storage, batch) == exit_codes.DONE
    shown = client.get(f"/v1/batches/{batch}").json()
    assert shown["state"] == "failed"
    assert "Version 1" in shown["failure"]["problem"]


def test_a_blob_that_is_gone_is_the_images_problem(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
) -> None:
    batch = start(client, served.project, count=2)
    with database.reading() as session:
        name = session.scalars(select(BatchImage.sha256).where(BatchImage.position == 1)).one()
    assert storage.remove_old(name or "", 0)
    assert run_here(settings, database, storage, batch) == exit_codes.DONE
    fine, gone = lines_of(client, batch)
    assert fine["decision"]
    assert "error" in gone


# --- states


def part(batch: UUID, position: int) -> tuple[BatchPart, Progress]:
    progress = Progress(
        done=position + 4, total=10, failed=0, images_per_second=1.0, seconds_left=1.0
    )
    made = BatchPart(batch_id=batch, position=position, count=4, sha256="0" * 64)
    return made, progress


def test_a_part_is_recorded_once_and_under_the_lease_alone(
    client: TestClient, database: Database, queue: InMemoryQueue, served: Served
) -> None:
    batch = start(client, served.project)
    old = claim(database, batch, seconds=-1)
    with database.unit_of_work() as session:
        assert note_part(session, old, *part(batch, 0)) == "held"
    with database.unit_of_work() as session:  # the answer to the commit was lost
        assert note_part(session, old, *part(batch, 0)) == "held"
    queue.sent.clear()
    reap(database, queue, TuningSettings())
    assert queue.sent == [(BATCH, (str(batch),))]
    new = claim(database, batch)
    with database.unit_of_work() as session:
        assert note_part(session, old, *part(batch, 4)) == "lost"
        assert not BATCHES.complete(session, old)
    with database.reading() as session:
        assert session.scalars(select(BatchPart.position)).all() == [0]
    progress = row_of(database, batch).progress
    assert progress is not None
    assert progress["done"] == 4
    with database.unit_of_work() as session:
        assert note_part(session, new, *part(batch, 4)) == "held"


def test_losses_count_one_after_the_other_and_hand_backs_do_not(
    client: TestClient, database: Database, queue: InMemoryQueue, served: Served
) -> None:
    batch = start(client, served.project)
    for _ in range(5):
        with database.unit_of_work() as session:
            lease = BATCHES.claim(session, batch, owner="test", seconds=30)
            assert lease is not None
            BATCHES.give_back(session, lease, FAILURE, max_attempts=None)
    for _ in range(2):
        claim(database, batch, seconds=-1)
        reap(database, queue, TuningSettings(max_attempts=3))
    assert (row_of(database, batch).state, row_of(database, batch).losses) == ("queued", 2)
    lease = claim(database, batch, seconds=-1)
    with database.unit_of_work() as session:
        note_part(session, lease, *part(batch, 0))  # it got further
    for losses in (1, 2, 3):
        reap(database, queue, TuningSettings(max_attempts=3))
        assert row_of(database, batch).losses == losses
        if losses < 3:
            claim(database, batch, seconds=-1)
    shown = client.get(f"/v1/batches/{batch}").json()
    assert shown["state"] == "failed"
    assert "batch's id" in shown["failure"]["fix"]


def supervise(
    database: Database, queue: InMemoryQueue, jobs: JobStates[Any], job: UUID, code: str
) -> None:
    """Run a child that only runs `code`, for a second at most."""
    settings = TuningSettings(poll_seconds=0.05, time_limit_seconds=1)
    command = [sys.executable, "-c", code]
    Supervisor(jobs, database, queue, settings, command=lambda _: command).run(job)


def test_who_gives_way_has_the_tuning_sent_again_and_first(
    client: TestClient, database: Database, queue: InMemoryQueue, served: Served
) -> None:
    batch = start(client, served.project)
    tuning = test_tunings.start(client, test_tunings.make_project(client, "good", "bad"))
    queue.sent.clear()
    supervise(database, queue, BATCHES, batch, f"raise SystemExit({exit_codes.GAVE_WAY})")
    assert queue.sent == [(TUNE, (str(tuning),)), (BATCH, (str(batch),))]
    row = row_of(database, batch)
    assert (row.state, row.losses, row.failure) == ("queued", 0, None)


def test_too_long_is_the_end_of_a_tuning_and_a_loss_of_a_batch(
    client: TestClient, database: Database, queue: InMemoryQueue, served: Served
) -> None:
    batch = start(client, served.project)
    tuning = test_tunings.start(client, test_tunings.make_project(client, "good", "bad"))
    forever = "import threading; threading.Event().wait()"
    supervise(database, queue, BATCHES, batch, forever)
    assert (row_of(database, batch).state, row_of(database, batch).losses) == ("queued", 1)
    supervise(database, queue, TUNINGS, tuning, forever)
    failed = test_tunings.row_of(database, tuning)
    assert failed.state == "failed"
    assert failed.failure is not None
    assert "longer than 1 seconds" in failed.failure["problem"]


def test_a_batch_that_nobody_heard_of_is_sent_again(
    client: TestClient, database: Database, queue: InMemoryQueue, served: Served
) -> None:
    queue.error = ConnectionError("no Redis")
    batch = start(client, served.project, count=1)
    queue.error = None
    with database.unit_of_work() as session:
        session.execute(update(Batch).values(queued_at=database_now(-61)))
    reap(database, queue, TuningSettings(resend_seconds=60))
    reap(database, queue, TuningSettings(resend_seconds=60))
    assert queue.sent == [(BATCH, (str(batch),))]


def test_cancel(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queued, running = start(client, served.project), start(client, served.project)
    for _ in range(2):
        assert client.post(f"/v1/batches/{queued}/cancel").json()["state"] == "cancelled"
    lease = claim(database, running)
    look_up = BatchRun._look_up

    def cancel_meanwhile(run: BatchRun) -> None:
        client.post(f"/v1/batches/{running}/cancel")
        look_up(run)

    monkeypatch.setattr(BatchRun, "_look_up", cancel_meanwhile)
    assert BatchRun(lease, settings, database, storage).run() == exit_codes.LEASE_LOST
    with database.unit_of_work() as session:
        assert BATCHES.give_back(session, lease, FAILURE, max_attempts=None) == "cancelled"
    assert [line["index"] for line in lines_of(client, running)] == list(range(8))
    partial = client.get(f"/v1/batches/{running}/results")
    assert f"batch-{running}-partial.csv" in partial.headers["content-disposition"]
    again = start(client, served.project, count=1)
    monkeypatch.undo()
    run_here(settings, database, storage, again)
    ended = client.post(f"/v1/batches/{again}/cancel")
    assert_problem(ended, 409, "conflict", names=(str(again), "succeeded"), field="batch")


def test_results_before_the_end(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = start(client, served.project)
    address = f"/v1/batches/{batch}/results"
    for wanted in ("csv", "ndjson", "parquet"):
        early = client.get(address, params={"format": wanted})
        assert_problem(early, 409, "conflict", names=("queued", "0 of 10"), field="batch")

    def stop(_: BatchRun) -> None:
        raise GaveWay

    monkeypatch.setattr(batch_run.BatchRun, "_look_up", stop)
    assert run_here(settings, database, storage, batch) == exit_codes.GAVE_WAY
    assert [line["index"] for line in lines_of(client, batch)] == list(range(4))
    early = client.get(address, params={"format": "parquet"})
    assert_problem(early, 409, "conflict", names="4 of 10")
    assert_problem(client.get(address, params={"format": "xls"}), 422, "bad-input", field="format")


# --- deleted


def test_the_sweep_keeps_what_a_batch_names_until_it_is_deleted(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    served: Served,
) -> None:
    before = {blob.sha256 for blob in storage.blobs()}
    batch = start(client, served.project)
    unfinished = client.delete(f"/v1/batches/{batch}")
    assert_problem(unfinished, 409, "conflict", names=(str(batch), "queued"), field="batch")
    project = client.delete(f"/v1/projects/{served.project}")
    assert_problem(project, 409, "conflict", names="batch", field="project")
    run_here(settings, database, storage, batch)
    assert sweep_orphans(database, storage, min_age=0) == 0
    assert len(lines_of(client, batch)) == 10
    assert len({blob.sha256 for blob in storage.blobs()} - before) == 10 + 3
    assert client.delete(f"/v1/batches/{batch}").status_code == 204
    assert_problem(client.get(f"/v1/batches/{batch}"), 404, "not-found")
    with database.reading() as session:
        assert session.scalars(select(BatchImage)).all() == []
        assert session.scalars(select(BatchPart)).all() == []
    assert sweep_orphans(database, storage, min_age=0) == 13
    assert {blob.sha256 for blob in storage.blobs()} == before


def test_a_version_that_a_batch_names_stays(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    served: Served,
) -> None:
    (unserved,) = serving.add_versions(database, storage, served.project, [artifacts[1]])
    batch = start(client, served.project, count=1, model=unserved)
    refused = client.delete(f"/v1/models/{unserved}")
    assert_problem(refused, 409, "conflict", names="batch", field="model")
    client.post(f"/v1/batches/{batch}/cancel")
    client.delete(f"/v1/batches/{batch}")
    assert client.delete(f"/v1/models/{unserved}").status_code == 204
    with database.reading() as session:
        assert session.get(ModelVersion, unserved) is None
