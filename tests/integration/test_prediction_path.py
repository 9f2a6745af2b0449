"""What holds the prediction path together: slots, deadlines, records, quota, broken stores."""

import asyncio
import base64
import json
import os
import threading
from collections.abc import Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.settings import PredictionSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import PredictionRecord
from app.predictions import repository
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.records import NewRecord
from models.artifact import Artifact
from models.errors import StorageFull
from models.imaging import PixelSpec
from tests.integration import tiny
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.serving import Served, predictions_of, serve

PNG = {"content-type": "image/png"}


class Gate:
    """An encoder that stands still while its gate is closed, or breaks."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder
        self.source, self.digest = encoder.source, encoder.digest
        self.about = encoder.about
        self.pixels: PixelSpec = encoder.pixels
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.error: Exception | None = None
        self.sizes: list[int] = []

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        self.sizes.append(len(pixels))
        self.entered.release()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        return self._encoder.encode(pixels)


@pytest.fixture
def gate(encoder: ImageEncoder) -> Gate:
    return Gate(encoder)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    prediction = PredictionSettings(
        max_batch=4, max_queue=6, record_queue=5, image_quota_bytes=20_000
    )
    return settings.model_copy(update={"prediction": prediction})


@pytest.fixture
def app_encoder(gate: Gate) -> ImageEncoder:
    return gate


@pytest.fixture
def served(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    return serve(client, database, storage, artifacts[0])


def recorded(client: TestClient, served: Served, database: Database) -> dict[str, Any]:
    """Have an image decided on; return its record, for further ones like it."""
    answer = client.post(served.predict, content=tiny.photograph(0, 0), headers=PNG).json()
    path = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: client.get(path).json()["items"], "the record")
    with database.reading() as session:
        row = session.get_one(PredictionRecord, UUID(answer["prediction_id"]))
        columns = PredictionRecord.__table__.columns.keys()
        return {name: getattr(row, name) for name in columns}


Ask = Callable[..., Any]


@pytest.fixture
def ask(client: TestClient, served: Served, gate: Gate) -> Iterator[Ask]:
    """Ask on a thread of its own; return the future of the answer."""
    with ThreadPoolExecutor(16) as threads:

        def post(number: int = 0, **kwargs: Any) -> Any:
            headers = PNG | kwargs.pop("headers", {})
            return threads.submit(
                client.post,
                served.predict,
                content=tiny.photograph(0, number),
                headers=headers,
                **kwargs,
            )

        yield post
        gate.open.set()


def in_flight(client: TestClient, number: float) -> bool:
    return f"shotline_prediction_images_in_flight {float(number)}" in client.get("/metrics").text


def test_more_than_is_taken_is_refused_at_once(
    client: TestClient, served: Served, gate: Gate, ask: Ask
) -> None:
    gate.open.clear()
    waiting = [ask(number) for number in range(6)]
    wait_for(lambda: in_flight(client, 6), "six images in flight")
    refused = client.post(served.predict, content=tiny.photograph(0, 7), headers=PNG)
    assert_problem(refused, 503, "unavailable", names=("6 images", "1 were sent"))
    assert int(refused.headers["retry-after"]) >= 1
    gate.open.set()
    assert [future.result(30).status_code for future in waiting] == [200] * 6
    assert in_flight(client, 0)
    assert "shotline_predictions_shed_total 1.0" in client.get("/metrics").text
    assert gate.sizes[0] <= 6
    assert max(gate.sizes) <= 4


def test_a_large_request_takes_its_share_and_no_more(
    client: TestClient, served: Served, gate: Gate
) -> None:
    sent = [("image", (f"{n}.png", tiny.photograph(0, n), "image/png")) for n in range(20)]
    response = client.post(served.predict, files=sent)
    assert [entry["image_id"] for entry in response.json()["results"]] == [
        f"{n}.png" for n in range(20)
    ]
    assert max(gate.sizes) <= 4


def test_a_deadline_is_answered_when_it_comes(client: TestClient, gate: Gate, ask: Ask) -> None:
    gate.open.clear()
    first = ask(0)
    assert gate.entered.acquire(timeout=30)
    late = ask(1, params={"deadline_ms": 50})
    # Answered while the encoder stands still: the caller learns it in time.
    assert_problem(late.result(30), 504, "deadline-passed", field="deadline_ms")
    gate.open.set()
    assert first.result(30).status_code == 200
    assert gate.sizes == [1]
    assert "shotline_predictions_expired_total 1.0" in client.get("/metrics").text


def test_what_has_begun_is_finished_whatever_the_deadline(gate: Gate, ask: Ask) -> None:
    gate.open.clear()
    begun = ask(0, params={"deadline_ms": 2000})
    assert gate.entered.acquire(timeout=30)
    timer = threading.Timer(2.2, gate.open.set)
    timer.start()
    assert begun.result(30).status_code == 200
    timer.join()


def test_a_failing_encoder_reaches_everyone(client: TestClient, gate: Gate, ask: Ask) -> None:
    gate.error = RuntimeError("CUDA error")
    answers = [ask(number).result(30) for number in range(3)]
    for answer in answers:
        assert_problem(answer, 503, "unavailable", names="RuntimeError")
        assert "CUDA" not in answer.text
    gate.error = None
    assert ask(0).result(30).status_code == 200


def test_the_same_key_while_the_first_is_being_answered(
    client: TestClient, served: Served, gate: Gate, ask: Ask
) -> None:
    gate.open.clear()
    key = {"Idempotency-Key": "one"}
    first = ask(0, headers=key)
    assert gate.entered.acquire(timeout=30)
    second = client.post(served.predict, content=tiny.photograph(0, 0), headers=PNG | key)
    assert_problem(second, 409, "conflict", names="one", field="Idempotency-Key")
    gate.open.set()
    answer = first.result(30)
    third = client.post(served.predict, content=tiny.photograph(0, 0), headers=PNG | key)
    assert third.content == answer.content


def test_an_answer_in_which_something_failed_for_now_is_not_remembered(
    client: TestClient, served: Served, gate: Gate
) -> None:
    sent = [("image", (f"{n}.png", tiny.photograph(0, n), "image/png")) for n in range(2)]
    key = {"Idempotency-Key": "one"}
    gate.error = RuntimeError("CUDA error")
    failed = client.post(served.predict, files=sent, headers=key).json()["results"]
    assert [entry["status"] for entry in failed] == [503, 503]
    gate.error = None
    better = client.post(served.predict, files=sent, headers=key).json()["results"]
    assert all("decision" in entry for entry in better)


async def ask_and_leave(app: FastAPI, path: str, headers: dict[str, str], body: bytes) -> None:
    """Send a request, and go as soon as its answer begins."""
    begun = asyncio.Event()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        begun.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},  # as uvicorn says
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("test", 1),
        "server": ("test", 80),
    }
    await app(scope, receive, send)


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "one"}], ids=["no key", "key"])
def test_a_caller_who_leaves_before_the_lines(
    app: FastAPI, client: TestClient, served: Served, gate: Gate, key: dict[str, str]
) -> None:
    gate.open.clear()
    images = [{"image": base64.b64encode(tiny.photograph(0, n)).decode()} for n in range(3)]
    headers = {"accept": "application/x-ndjson", "content-type": "application/json"} | key
    body = json.dumps({"images": images}).encode()
    authorization = {"authorization": client.headers["authorization"]}
    assert client.portal is not None
    client.portal.call(ask_and_leave, app, served.predict, headers | authorization, body)
    if not key:
        wait_for(lambda: in_flight(client, 0), "free slots", 5)
        gate.open.set()
        return
    assert in_flight(client, 3)
    again = client.post(served.predict, content=body, headers=headers)
    assert_problem(again, 409, "conflict", names="one")
    gate.open.set()
    wait_for(lambda: in_flight(client, 0), "the end of the work", 5)
    again = client.post(served.predict, content=body, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    told = {json.loads(line)["prediction_id"] for line in again.text.splitlines()}
    path = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: len(client.get(path).json()["items"]) == 3, "the records")
    assert {entry["prediction_id"] for entry in client.get(path).json()["items"]} == told


def test_a_broken_store_of_answers_does_not_stop_the_line(
    app: FastAPI, client: TestClient, served: Served
) -> None:
    predictions_of(app).answers.stop()
    headers = PNG | {"Idempotency-Key": "one"}
    response = client.post(served.predict, content=tiny.photograph(0, 0), headers=headers)
    assert response.status_code == 200
    # Twice: the key could not be looked up, and the answer not be kept.
    assert "shotline_prediction_idempotency_lost_total 2.0" in client.get("/metrics").text


def test_records_that_do_not_fit_are_counted_and_predictions_go_on(
    app: FastAPI, client: TestClient, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = predictions_of(app).records
    blocked, go_on = threading.Event(), threading.Event()

    def insert(batch: list[NewRecord]) -> None:
        blocked.set()
        assert go_on.wait(30)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_insert", insert)
        made = []
        for number in range(8):
            response = client.post(served.predict, content=tiny.photograph(0, number), headers=PNG)
            assert response.status_code == 200
            made.append(response.json()["prediction_id"])
        assert blocked.wait(30)
        text = client.get("/metrics").text
        assert "shotline_prediction_records_lost_total 3.0" in text
        assert "shotline_prediction_records_waiting 5.0" in text
        # What waits can be read already.
        assert client.get(f"/v1/predictions/{made[0]}").status_code == 200
        assert_problem(client.get(f"/v1/predictions/{made[7]}"), 404, "not-found")
        go_on.set()
        wait_for(lambda: "records_waiting 0.0" in client.get("/metrics").text, "an empty queue")


@pytest.mark.parametrize(
    "wrong", [{"project_id": new_id()}, {"label": "\ud800"}], ids=["deleted project", "bad text"]
)
def test_a_record_that_no_database_takes_does_not_hold_up_the_others(
    app: FastAPI, client: TestClient, served: Served, database: Database, wrong: dict[str, object]
) -> None:
    path = f"/v1/projects/{served.project}/predictions"
    values = recorded(client, served, database)
    writer = predictions_of(app).records
    with writer._changed:  # so that all three ride in one batch
        for more in ({}, wrong, {}):
            writer.add(NewRecord(values | {"id": new_id()} | more))
    wait_for(lambda: len(client.get(path).json()["items"]) == 3, "the sound records")
    wait_for(lambda: "records_lost_total 1.0" in client.get("/metrics").text, "the count")


@pytest.mark.parametrize("fails", ["add_all", "kept_bytes"])
def test_a_full_disk_loses_no_record(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
) -> None:
    served = serve(client, database, storage, artifacts[0], "all")
    action, left = getattr(repository, fails), [StorageFull("Full.", fix="Free space.")]

    def fail_once(*args: Any) -> Any:
        if left:
            raise left.pop()
        return action(*args)

    monkeypatch.setattr(repository, fails, fail_once)
    path = f"/v1/projects/{served.project}/predictions"
    for number in range(2):
        client.post(served.predict, content=tiny.photograph(0, number), headers=PNG)
        wait_for(lambda n=number: len(client.get(path).json()["items"]) == n + 1, "the record", 20)
    assert not left
    assert "records_lost_total 0.0" in client.get("/metrics").text


@pytest.mark.parametrize("swept", [True, False], ids=["swept", "not swept"])
def test_an_image_whose_record_waits_longer_than_the_sweep(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    monkeypatch: pytest.MonkeyPatch,
    swept: bool,
) -> None:
    """The database's disk is full for hours: no row may name an image that is gone."""
    served = serve(client, database, storage, artifacts[0], "all")
    name, add_all = sha256(tiny.photograph(0, 0)).hexdigest(), repository.add_all
    removed: list[bool] = []

    def fail_once(*args: Any) -> None:
        if not removed:
            os.utime(next(storage.root.glob(f"??/??/{name}")), (0, 0))
            removed.append(swept and storage.remove_old(name, 3600))
            raise StorageFull("Full.", fix="Free space.")
        removed.append(storage.remove_old(name, 3600))  # a sweep that began before the commit
        add_all(*args)

    monkeypatch.setattr(repository, "add_all", fail_once)
    answer = client.post(served.predict, content=tiny.photograph(0, 0), headers=PNG).json()
    wait_for(lambda: client.get(f"/v1/projects/{served.project}/predictions").json()["items"], "it")
    assert removed == [swept, False]
    kept = client.get(f"/v1/predictions/{answer['prediction_id']}/image")
    assert kept.status_code == (404 if swept else 200)
    lost = f"shotline_prediction_images_lost_total {float(swept)}"
    assert lost in client.get("/metrics").text


def test_kept_images_stay_under_the_quota_the_oldest_go_first(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    served = serve(client, database, storage, artifacts[0], "all")
    path = f"/v1/projects/{served.project}/predictions"
    for number in range(10):  # about 5 kB each
        client.post(served.predict, content=tiny.photograph(0, number), headers=PNG)
        wait_for(lambda n=number: len(client.get(path).json()["items"]) == n + 1, "the record")

    def kept() -> list[bool]:
        return [entry["image_kept"] for entry in client.get(path).json()["items"]]

    size = len(tiny.photograph(0, 0))
    room = 20_000 // size
    assert 0 < room < 10
    wait_for(lambda: kept().count(True) <= room, "the quota")
    assert kept() == sorted(kept())
    assert kept()[-1]


def test_one_look_keeps_the_quota_of_all_projects_of_a_batch(
    app: FastAPI,
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    much, little = (serve(client, database, storage, artifacts[0]) for _ in range(2))
    looks: list[list[UUID]] = []
    look = repository.kept_bytes

    def noted(session: Session, projects: list[UUID]) -> dict[UUID, int]:
        looks.append(list(projects))
        return look(session, projects)

    monkeypatch.setattr(repository, "kept_bytes", noted)
    values = {served: recorded(client, served, database) for served in (much, little)}
    writer = predictions_of(app).records
    with writer._changed:  # so that all of them ride in one batch
        for number, served in enumerate((much, much, little, much)):
            image = bytes([number]) * 9_000
            writer.add(NewRecord(values[served] | {"id": new_id()}, image=image))
    wait_for(lambda: looks, "the look")
    wait_for(lambda: "records_waiting 0.0" in client.get("/metrics").text, "the end of the batch")

    assert looks == [[much.project, little.project]]
    kept = {
        served: [
            entry["image_kept"]
            for entry in client.get(f"/v1/projects/{served.project}/predictions").json()["items"]
        ]
        for served in (much, little)
    }
    assert kept == {much: [False, False, True, True], little: [False, True]}
