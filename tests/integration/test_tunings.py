"""Tunings over HTTP and their states; the worker itself is in `test_worker`."""

import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from threading import Barrier
from typing import Any
from uuid import UUID

import anyio
import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.core.database import Database, database_now
from app.core.errors import Unavailable
from app.core.ids import new_id
from app.core.jobs import TUNINGS, Failure, Lease
from app.core.queue import TUNE, InMemoryQueue
from app.core.reaper import reap
from app.core.settings import Settings, TuningSettings
from app.core.storage import LocalStorage
from app.core.tables import ModelVersion, Project, SnapshotImage, Tuning
from app.tunings import repository
from app.tunings.events import KEEP_ALIVE, tuning_events
from models.errors import StorageFull
from models.imaging import DECODER_VERSION
from models.recipe import Recipe
from tests.integration import tiny
from tests.integration.conftest import MakeClient
from tests.integration.problems import assert_problem
from worker import exit_codes
from worker.supervisor import Supervisor
from worker.tuning_run import TuningRun

FAILURE = Failure(problem="It broke.", fix="Mend it.")


def make_project(client: TestClient, *labels: str, images: int = 3) -> UUID:
    """Make a project with `images` photographs of each class."""
    classes = [{"name": label, "prompt_name": f"thing {n}"} for n, label in enumerate(labels)]
    made = client.post("/v1/projects", json={"name": f"p-{new_id()}", "classes": classes})
    assert made.status_code == 201, made.text
    project = made.json()["id"]
    for place, label in enumerate(labels):
        files = [
            ("images", (f"{label}-{n}.png", tiny.photograph(place, n), "image/png"))
            for n in range(images)
        ]
        sent = client.post(f"/v1/projects/{project}/images", data={"label": label}, files=files)
        assert sent.status_code == 200, sent.text
    return UUID(project)


def start(client: TestClient, project: UUID, **body: object) -> UUID:
    response = client.post(f"/v1/projects/{project}/tunings", json={"recipe": tiny.RECIPE} | body)
    assert response.status_code == 202, response.text
    return UUID(response.json()["id"])


def claim(database: Database, tuning: UUID, seconds: float = 30.0) -> Lease | None:
    with database.unit_of_work() as session:
        return TUNINGS.claim(session, tuning, owner="test", seconds=seconds)


def row_of(database: Database, tuning: UUID) -> Tuning:
    with database.reading() as session:
        return session.scalars(select(Tuning).where(Tuning.id == tuning)).one()


def test_start_freezes_commits_then_sends(
    client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    project = make_project(client, "good", "傷")
    response = client.post(f"/v1/projects/{project}/tunings", json={"seed": 7})
    assert response.status_code == 202
    tuning = response.json()
    assert response.headers["location"] == f"/v1/tunings/{tuning['id']}"
    assert tuning["state"] == "queued"
    assert tuning["seed"] == 7
    assert tuning["recipe"]["steps"] > 0
    assert tuning["snapshot"]["images"] == 6
    assert tuning["snapshot"]["classes"] == ["good", "傷"]
    assert queue.sent == [(TUNE, (tuning["id"],))]
    with database.reading() as session:
        assert len(session.scalars(select(SnapshotImage)).all()) == 6
    assert client.get(f"/v1/tunings/{tuning['id']}").json() == tuning
    listed = client.get(f"/v1/projects/{project}/tunings").json()
    assert listed["items"] == [tuning]


def test_the_same_snapshot_is_used_again(client: TestClient) -> None:
    project = make_project(client, "good", "bad")
    first, second = start(client, project), start(client, project)
    snapshots = {client.get(f"/v1/tunings/{t}").json()["snapshot"]["id"] for t in (first, second)}
    assert len(snapshots) == 1


def test_no_message_where_redis_is_gone(
    client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    project = make_project(client, "good", "bad")
    queue.error = ConnectionError("no Redis")
    tuning = start(client, project)
    assert row_of(database, tuning).state == "queued"
    queue.error = None
    reap(database, queue, TuningSettings(resend_seconds=3600))
    assert queue.sent == []
    with database.unit_of_work() as session:
        session.execute(update(Tuning).values(queued_at=database_now(-61)))
    reap(database, queue, TuningSettings(resend_seconds=60))
    reap(database, queue, TuningSettings(resend_seconds=60))
    assert queue.sent == [(TUNE, (str(tuning),))]


@pytest.mark.parametrize("labels", [(), ("good",)])
def test_fewer_than_two_classes(client: TestClient, labels: tuple[str, ...]) -> None:
    project = make_project(client, *labels)
    response = client.post(f"/v1/projects/{project}/tunings", json={})
    names = ("2 classes", *labels)
    assert_problem(response, 422, "bad-dataset", names=names, field="classes")
    assert client.get(f"/v1/projects/{project}/tunings").json()["items"] == []


def test_a_class_without_images(client: TestClient, queue: InMemoryQueue) -> None:
    project = make_project(client, "good", "bad")
    client.post(f"/v1/projects/{project}/classes", json={"name": "汚れ"})
    response = client.post(f"/v1/projects/{project}/tunings", json={})
    assert_problem(response, 422, "bad-dataset", names=("汚れ", "0 training"), field="汚れ")
    assert queue.sent == []


def test_a_class_with_one_image(client: TestClient) -> None:
    project = make_project(client, "good", "bad", images=1)
    response = client.post(f"/v1/projects/{project}/tunings", json={})
    assert_problem(response, 422, "bad-dataset", names=("good", "2 parts"))


def test_a_tuning_needs_no_body(client: TestClient) -> None:
    project = make_project(client, "good", "bad")
    response = client.post(f"/v1/projects/{project}/tunings")
    assert response.status_code == 202, response.text
    assert response.json()["recipe"] == Recipe().model_dump(mode="json")


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"stepz": 3}, "stepz"),
        ({"steps": 0}, "steps"),
        ({"lr": "much"}, "lr"),
        ({"ctx_init": "a\0b"}, "ctx_init"),
    ],
)
def test_bad_recipe(client: TestClient, recipe: dict[str, object], field: str) -> None:
    project = make_project(client, "good", "bad")
    response = client.post(f"/v1/projects/{project}/tunings", json={"recipe": recipe})
    assert_problem(response, 422, "bad-recipe", names=field, field=field)


def test_bad_seed(client: TestClient) -> None:
    response = client.post(f"/v1/projects/{new_id()}/tunings", json={"seed": 2**63})
    assert_problem(response, 422, "bad-input", names=str(2**63), field="seed")


def test_unknown_project_and_tuning(client: TestClient) -> None:
    nothing = new_id()
    for response in (
        client.post(f"/v1/projects/{nothing}/tunings", json={}),
        client.get(f"/v1/projects/{nothing}/tunings"),
        client.get(f"/v1/tunings/{nothing}"),
        client.get(f"/v1/tunings/{nothing}/events"),
        client.post(f"/v1/tunings/{nothing}/cancel"),
    ):
        assert_problem(response, 404, "not-found", names=str(nothing))


def test_roles(make_client: MakeClient, client: TestClient) -> None:
    project = make_project(client, "good", "bad")
    tuning = start(client, project)
    operator = make_client("operator")
    assert operator.get(f"/v1/tunings/{tuning}").status_code == 200
    refused = operator.post(f"/v1/projects/{project}/tunings", json={})
    assert_problem(refused, 403, "forbidden", names="engineer")
    assert_problem(operator.post(f"/v1/tunings/{tuning}/cancel"), 403, "forbidden")
    stranger = make_client("engineer", make_project(client))
    for response in (
        stranger.get(f"/v1/tunings/{tuning}"),
        stranger.post(f"/v1/tunings/{tuning}/cancel"),
        stranger.post(f"/v1/projects/{project}/tunings", json={}),
    ):
        assert_problem(response, 404, "not-found")


def test_cancel_while_queued(client: TestClient, database: Database) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    for _ in range(2):
        cancelled = client.post(f"/v1/tunings/{tuning}/cancel")
        assert cancelled.status_code == 200
        assert cancelled.json()["state"] == "cancelled"
        assert cancelled.json()["finished_at"]
    assert claim(database, tuning) is None


def test_cancel_while_running_is_left_to_the_worker(client: TestClient, database: Database) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    lease = claim(database, tuning)
    assert lease is not None
    asked = client.post(f"/v1/tunings/{tuning}/cancel").json()
    assert (asked["state"], asked["cancel_requested"]) == ("running", True)
    with database.unit_of_work() as session:
        assert TUNINGS.renew(session, lease, seconds=30) == "cancel"
        assert not TUNINGS.complete(session, lease)
        assert TUNINGS.give_back(session, lease, FAILURE, max_attempts=3) == "cancelled"
    shown = client.get(f"/v1/tunings/{tuning}").json()
    assert (shown["state"], shown["failure"]) == ("cancelled", None)


def test_cancel_after_the_end(client: TestClient, database: Database) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    lease = claim(database, tuning)
    assert lease is not None
    with database.unit_of_work() as session:
        assert TUNINGS.fail(session, lease, FAILURE)
    response = client.post(f"/v1/tunings/{tuning}/cancel")
    assert_problem(response, 409, "conflict", names=(str(tuning), "failed"), field="tuning")
    shown = client.get(f"/v1/tunings/{tuning}").json()
    assert shown["failure"] == {"problem": "It broke.", "fix": "Mend it."}


def test_a_second_claim_finds_nothing(client: TestClient, database: Database) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    assert claim(database, tuning) == Lease(tuning, 1)
    assert claim(database, tuning) is None


def test_a_lost_worker_can_change_nothing(
    client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    old = claim(database, tuning, seconds=-1)
    assert old is not None
    queue.sent.clear()
    reap(database, queue, TuningSettings())
    assert queue.sent == [(TUNE, (str(tuning),))]
    new = claim(database, tuning)
    assert new == Lease(tuning, 2)
    with database.unit_of_work() as session:
        assert TUNINGS.renew(session, old, seconds=30) == "lost"
        assert TUNINGS.note(session, old, progress={"phase": "tune"}) == "lost"
        assert TUNINGS.note(session, old, checkpoint="0" * 64) == "lost"
        assert not TUNINGS.complete(session, old)
        assert not TUNINGS.fail(session, old, FAILURE)
        assert TUNINGS.give_back(session, old, FAILURE, max_attempts=3) is None
    assert row_of(database, tuning).state == "running"


def test_the_third_loss_is_a_failure(
    client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    for attempt in (1, 2, 3):
        lease = claim(database, tuning, seconds=-1)
        assert lease == Lease(tuning, attempt)
        reap(database, queue, TuningSettings(max_attempts=3))
    shown = client.get(f"/v1/tunings/{tuning}").json()
    assert (shown["state"], shown["attempt"]) == ("failed", 3)
    assert "lost" in shown["failure"]["problem"]
    assert "log" in shown["failure"]["fix"]


def test_a_lost_tuning_that_was_to_be_cancelled_is(
    client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    claim(database, tuning, seconds=-1)
    client.post(f"/v1/tunings/{tuning}/cancel")
    reap(database, queue, TuningSettings(max_attempts=1))
    assert row_of(database, tuning).state == "cancelled"


def test_being_told_to_stop_spends_no_attempt(client: TestClient, database: Database) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    for _ in range(5):
        lease = claim(database, tuning)
        assert lease is not None
        with database.unit_of_work() as session:
            assert TUNINGS.give_back(session, lease, FAILURE, max_attempts=None) == "queued"
    assert row_of(database, tuning).failure is None


@pytest.mark.parametrize("how", ["cancelled", "cancelled while queued", "lost"])
def test_what_has_ended_names_no_checkpoint(
    client: TestClient, database: Database, queue: InMemoryQueue, how: str
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    lease = claim(database, tuning, seconds=-1)
    assert lease is not None
    with database.unit_of_work() as session:
        TUNINGS.note(session, lease, checkpoint="0" * 64)
        if how == "cancelled while queued":
            TUNINGS.give_back(session, lease, FAILURE, max_attempts=None)
    assert row_of(database, tuning).checkpoint is not None
    if how != "lost":
        client.post(f"/v1/tunings/{tuning}/cancel")
    reap(database, queue, TuningSettings(max_attempts=1))
    assert row_of(database, tuning).state == ("failed" if how == "lost" else "cancelled")
    assert row_of(database, tuning).checkpoint is None  # so that its blob is swept


def test_of_two_workers_at_once_one_gets_the_tuning(client: TestClient, database: Database) -> None:
    project = make_project(client, "good", "bad")
    with ThreadPoolExecutor(2) as threads:
        for _ in range(10):
            tuning = start(client, project)
            together = Barrier(2)

            def take(_: int, tuning: UUID = tuning, together: Barrier = together) -> Lease | None:
                together.wait(10)
                return claim(database, tuning)

            assert sorted(threads.map(take, range(2)), key=bool) == [None, Lease(tuning, 1)]


def supervise(
    database: Database,
    queue: InMemoryQueue,
    tuning: UUID,
    code: str,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Run a child that only runs `code`, with one attempt allowed."""
    settings = TuningSettings(max_attempts=1, poll_seconds=0.05)
    command = [sys.executable, "-c", code]
    Supervisor(
        TUNINGS, database, queue, settings, stopping=stopping, command=lambda _: command
    ).run(tuning)


@pytest.mark.parametrize("code", [exit_codes.HANDED_BACK, exit_codes.LEASE_LOST])
def test_a_child_that_hands_back_spends_no_attempt(
    client: TestClient, database: Database, queue: InMemoryQueue, code: int
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    supervise(database, queue, tuning, f"raise SystemExit({code})")
    row = row_of(database, tuning)
    assert (row.state, row.failure) == ("queued", None)
    assert queue.sent[-1] == (TUNE, (str(tuning),))
    supervise(database, queue, tuning, "raise SystemExit(3)")
    row = row_of(database, tuning)
    assert row.state == "failed"
    assert row.failure is not None
    assert "code 3" in row.failure["problem"]


def test_a_worker_that_is_told_to_stop_does_not_wait_for_the_database(
    client: TestClient, database: Database, queue: InMemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))

    def away(*_: object, **__: object) -> None:
        raise Unavailable("Away.", fix="Wait.")

    monkeypatch.setattr(TUNINGS, "give_back", away)
    supervise(database, queue, tuning, "pass", stopping=lambda: True)
    assert row_of(database, tuning).state == "running"  # until the reaper finds it


def events_of(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        if not block.startswith(":"):
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def test_events_end_with_the_tuning_and_can_be_resumed(
    client: TestClient, database: Database
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    client.post(f"/v1/tunings/{tuning}/cancel")
    response = client.get(f"/v1/tunings/{tuning}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    ((name, kind, shown),) = events_of(response.text)
    assert (kind, shown["state"]) == ("end", "cancelled")
    again = client.get(f"/v1/tunings/{tuning}/events", headers={"last-event-id": name})
    assert events_of(again.text) == events_of(response.text)


def test_events_of_a_running_tuning_go_on_from_the_last_one_seen(
    client: TestClient, database: Database
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    lease = claim(database, tuning)
    assert lease is not None

    async def first(last_event_id: str | None) -> str:
        with database.reading() as session:
            row = repository.get(session, tuning)
        assert row is not None
        stream = tuning_events(
            row,
            database,
            last_event_id=last_event_id,
            poll_seconds=0.02,
            keep_alive_seconds=0.1,
        )
        async with aclosing(stream):
            return (await anext(stream)).decode()

    ((seen, kind, shown),) = events_of(anyio.run(first, None))
    assert (kind, shown["state"]) == ("progress", "running")
    assert anyio.run(first, seen) == KEEP_ALIVE.decode()
    with database.unit_of_work() as session:
        TUNINGS.note(session, lease, progress={"phase": "tune", "done": 1, "total": 4})
    ((name, _, shown),) = events_of(anyio.run(first, seen))
    assert name != seen
    assert shown["progress"]["done"] == 1


def run_here(
    settings: Settings, database: Database, storage: LocalStorage, tuning: UUID
) -> tuple[int, Lease]:
    """Do in this process what a worker's child does."""
    lease = claim(database, tuning)
    assert lease is not None
    return TuningRun(lease, settings, database, storage).run(), lease


def test_a_run_leaves_a_version(
    client: TestClient, settings: Settings, database: Database, storage: LocalStorage
) -> None:
    project = make_project(client, "good", "傷 🔍")
    tuning = start(client, project)
    assert run_here(settings, database, storage, tuning)[0] == exit_codes.DONE
    shown = client.get(f"/v1/tunings/{tuning}").json()
    assert shown["state"] == "succeeded"
    assert shown["model"]["version"] == 1
    assert shown["progress"]["phase"] == "evaluate"
    assert shown["progress"]["nc"]["text_nc2"] is not None
    model = client.get(f"/v1/models/{shown['model']['id']}").json()
    assert [spec["name"] for spec in model["classes"]] == ["good", "傷 🔍"]
    assert model["accuracy"]["basis"] == "out-of-fold"
    report = client.get(f"/v1/models/{model['id']}/report")
    assert report.json()["metrics"]["tuned"]["n_images"] == 6
    page = client.get(f"/v1/models/{model['id']}/report", headers={"accept": "text/html"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "傷 🔍" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert_report_in_both_languages(client, f"/v1/models/{model['id']}/report")
    second = start(client, project)
    assert run_here(settings, database, storage, second)[0] == exit_codes.DONE
    again = client.get(f"/v1/tunings/{second}").json()
    assert again["model"]["version"] == 2
    digest = client.get(f"/v1/models/{again['model']['id']}").json()["digest"]
    assert digest == model["digest"]


def assert_report_in_both_languages(client: TestClient, address: str) -> None:
    """English unless asked otherwise; the query counts more than the header."""
    page = {"format": "html"}
    assert '<html lang="en">' in client.get(address, params=page).text
    japanese = client.get(address, params=page, headers={"accept-language": "ja,en;q=0.5"})
    assert '<html lang="ja">' in japanese.text
    assert japanese.headers["content-language"] == "ja"
    assert "Accept-Language" in japanese.headers["vary"]
    english = client.get(
        address, params={**page, "language": "en"}, headers={"accept-language": "ja"}
    )
    assert '<html lang="en">' in english.text
    assert client.get(address, params={**page, "language": "de"}).status_code == 422
    document = client.get(address, params={"language": "ja"}).json()["report"]
    assert document["language"] == "ja"
    assert "ゼロショット" in " ".join(document["summary"])
    assert document["linear_probe"]["basis"] == "out-of-fold"
    for mistake in document["mistakes"]:
        assert mistake["way"] == "attention"  # drawn by the worker: the tiny tower is a ViT
        assert re.fullmatch("[0-9a-f]{64}", mistake["sha256"])


def test_a_project_of_an_older_decoder_is_tuned_again(
    client: TestClient, settings: Settings, database: Database, storage: LocalStorage
) -> None:
    project = make_project(client, "good", "bad")
    with database.unit_of_work() as session:
        row = session.get_one(Project, project)
        row.view = {"roi": [0.1, 0.1, 0.9, 0.9], "resize": "crop", "decoder": "pillow/1"}
    queued_before = start(client, project)
    with database.unit_of_work() as session:
        session.get_one(Tuning, queued_before).view = {"decoder": "pillow/1"}

    shown = client.get(f"/v1/projects/{project}").json()["view"]
    assert shown == {"roi": [0.1, 0.1, 0.9, 0.9], "resize": "crop", "decoder": DECODER_VERSION}
    assert client.patch(f"/v1/projects/{project}", json={"view": shown}).status_code == 200
    run_here(settings, database, storage, queued_before)
    failed = client.get(f"/v1/tunings/{queued_before}").json()
    assert failed["state"] == "failed"
    assert "pillow/1" in str(failed["failure"])
    assert "Tune again" in str(failed["failure"])
    again = start(client, project)
    assert row_of(database, again).view == shown
    assert run_here(settings, database, storage, again)[0] == exit_codes.DONE
    assert client.get(f"/v1/tunings/{again}").json()["state"] == "succeeded"


def test_a_report_that_cannot_be_stored_fails_nothing(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    put = storage.put

    def full(data: bytes) -> str:
        if data.startswith(b'{"form"'):
            raise StorageFull("Full.", fix="Free space.")
        return put(data)

    monkeypatch.setattr(storage, "put", full)
    assert run_here(settings, database, storage, tuning)[0] == exit_codes.DONE
    model = client.get(f"/v1/tunings/{tuning}").json()["model"]["id"]
    page = client.get(f"/v1/models/{model}/report", params={"format": "html"})
    assert_problem(page, 404, "not-found")


def test_a_run_that_fails_says_why(
    client: TestClient, settings: Settings, database: Database, storage: LocalStorage
) -> None:
    tuning = start(client, make_project(client, "good", "bad"), recipe={"n_ctx": 64})
    with database.unit_of_work() as session:
        session.execute(update(Tuning).values(backbone="local-dir:/nowhere"))
    assert run_here(settings, database, storage, tuning)[0] == exit_codes.DONE
    shown = client.get(f"/v1/tunings/{tuning}").json()
    assert shown["state"] == "failed"
    assert "/nowhere" in shown["failure"]["problem"]
    assert shown["failure"]["fix"]


def test_a_run_whose_lease_is_gone_leaves_no_version(
    client: TestClient, settings: Settings, database: Database, storage: LocalStorage
) -> None:
    tuning = start(client, make_project(client, "good", "bad"))
    lease = claim(database, tuning)
    assert lease is not None
    client.post(f"/v1/tunings/{tuning}/cancel")
    run = TuningRun(lease, settings, database, storage)
    assert run.run() == exit_codes.LEASE_LOST
    with database.reading() as session:
        assert session.scalars(select(ModelVersion)).all() == []


def test_a_run_told_to_stop_leaves_a_checkpoint_to_go_on_from(
    client: TestClient, settings: Settings, database: Database, storage: LocalStorage
) -> None:
    project = make_project(client, "good", "bad")
    whole, parts = start(client, project), start(client, project)
    run_here(settings, database, storage, whole)
    lease = claim(database, parts)
    assert lease is not None
    run = TuningRun(lease, settings, database, storage)
    run.stop()
    assert run.run() == exit_codes.HANDED_BACK
    assert row_of(database, parts).checkpoint is not None
    with database.unit_of_work() as session:
        TUNINGS.give_back(session, lease, FAILURE, max_attempts=None)
    assert run_here(settings, database, storage, parts)[0] == exit_codes.DONE
    with database.reading() as session:
        assert len({row.digest for row in session.scalars(select(ModelVersion))}) == 1
    assert row_of(database, parts).checkpoint is None
