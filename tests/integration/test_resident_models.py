"""Models in memory: promotions under load and between gateways, eviction, broken artifacts."""

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import event, update
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.queue import InMemoryQueue
from app.core.settings import GIB, PredictionSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import Project, Serving
from app.keys import service as keys
from app.main import create_app
from app.predictions import repository
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.resident import ModelCache
from app.projects import repository as project_rows
from models.artifact import Artifact
from tests.integration import tiny
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.serving import (
    Served,
    add_versions,
    make_project,
    predictions_of,
    promote,
    serve,
)

PNG = {"content-type": "image/png"}
# Bytes of three classes under the tiny backbone: embeddings, two fold models, class means.
MODEL = 3 * 16 * 4 + (2 + 1) * 3 * 16
PROMOTIONS = 120
# So that only what a test does itself brings models into memory.
NEVER = 3600.0

Ask = Callable[..., Any]


def with_labels(artifact: Artifact, *labels: str) -> Artifact:
    """Return the artifact under other labels."""
    pairs = zip(artifact.header.classes, labels, strict=True)
    classes = [spec.model_copy(update={"name": label}) for spec, label in pairs]
    header = artifact.header.model_copy(update={"classes": classes})
    return Artifact(header, artifact.tensors)


def predict(client: TestClient, project: UUID, number: int = 0) -> Any:
    body = tiny.photograph(number % 3, number)
    return client.post(f"/v1/projects/{project}/predict", content=body, headers=PNG)


def blob_of(database: Database, model: UUID) -> str:
    with database.reading() as session:
        found = repository.version(session, model)
    assert found is not None
    return found.artifact_sha256


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


class Gateways:
    """Makes gateways on the test's one database and storage."""

    def __init__(
        self, settings: Settings, storage: LocalStorage, encoder: ImageEncoder, stack: ExitStack
    ) -> None:
        self._settings, self._storage = settings, storage
        self._encoder, self._stack = encoder, stack

    def start(
        self, load: Callable[[], ImageEncoder] | None = None, **prediction: Any
    ) -> tuple[FastAPI, TestClient]:
        server = self._settings.server
        settings = self._settings.model_copy(
            update={
                "server": server.model_copy(update={"home": server.home / str(new_id())}),
                "prediction": PredictionSettings(**prediction),
            }
        )
        app = create_app(
            settings,
            storage=self._storage,
            queue=InMemoryQueue(),
            load_encoder=load or (lambda: self._encoder),
        )
        client = self._stack.enter_context(TestClient(app))
        with app.state.gateway.database.unit_of_work() as session:
            key = keys.create_key(session, name="admin", role="admin", project_id=None)
        client.headers["Authorization"] = f"Bearer {key.plaintext}"
        app.state.gateway.keys.refresh()
        wait_for(lambda: client.get("/readyz").status_code == 200, "a ready gateway")
        return app, client


@pytest.fixture
def gateways(
    settings: Settings, storage: LocalStorage, encoder: ImageEncoder
) -> Iterator[Gateways]:
    with ExitStack() as stack:
        yield Gateways(settings, storage, encoder, stack)


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collect what is sent to the database."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("SELECT"):
            sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("limit", [GIB, 4 * MODEL], ids=["roomy", "tight"])
def test_no_request_fails_and_none_is_a_mixture_while_versions_are_promoted(
    gateways: Gateways, database: Database, artifacts: list[Artifact], limit: int
) -> None:
    app, client = gateways.start(model_bytes=limit)
    first = [with_labels(artifacts[0], "a", "b", "c"), with_labels(artifacts[1], "d", "e", "f")]
    projects = [make_project(client) for _ in range(3)]
    storage = app.state.gateway.storage
    models = {project: add_versions(database, storage, project, first) for project in projects}
    for project in projects:
        promote(client, project, 1)
    expected = {1: (first[0].digest, {"a", "b", "c"}), 2: (first[1].digest, {"d", "e", "f"})}
    done = threading.Event()

    def ask(place: int) -> list[Any]:
        answers = []
        for number in itertools.count(place):
            if done.is_set():
                return answers
            project = projects[number % 3]
            path = f"/v1/projects/{project}/predict"
            if number % 5 == 0:  # one that is not in production, maybe
                path = f"/v1/models/{models[project][number % 2]}/predict"
            answers.append(client.post(path, content=tiny.photograph(0, place), headers=PNG))
        return answers

    with ThreadPoolExecutor(5) as threads:
        asked = [threads.submit(ask, place) for place in range(5)]
        try:
            for number in range(PROMOTIONS):
                promote(client, projects[number % 3], 2 - (number // 3) % 2)
        finally:
            done.set()
        answers = [answer for future in asked for answer in future.result()]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    seen = set()
    for answer in (response.json() for response in answers):
        digest, labels = expected[answer["model"]["version"]]
        assert answer["model"]["digest"] == digest
        assert {entry["label"] for entry in answer["probabilities"]} == labels
        seen.add(answer["model"]["version"])
    assert seen == {1, 2}
    evicted = metric(client, "shotline_models_evicted_total")
    assert evicted > 0 if limit < GIB else evicted == 0
    assert metric(client, "shotline_models_resident_bytes") <= limit


def test_a_gateway_settles_once_its_models_are_in_memory(
    gateways: Gateways, database: Database, artifacts: list[Artifact], settled: list[None]
) -> None:
    app, client = gateways.start(refresh_seconds=0.05)
    wait_for(lambda: settled, "a gateway that has settled")
    project = make_project(client)
    add_versions(database, app.state.gateway.storage, project, artifacts[:1])
    promote(client, project, 1)
    assert predict(client, project).status_code == 200
    app.state.predictions.models.preload()
    assert settled == [None]


def test_a_promotion_on_one_gateway_is_answered_by_on_the_other(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact],
) -> None:  # fmt: skip
    assert PredictionSettings().refresh_seconds <= 0.5  # the rest of the second is for loading
    (_, here), (other, there) = gateways.start(), gateways.start()
    served = serve(here, database, storage, artifacts[0])
    add_versions(database, storage, served.project, artifacts[1:])
    models = predictions_of(other).models
    wait_for(lambda: _in_production(models, served.project), "the first promotion")
    seconds = []
    for version in (2, 3, 1, 2):
        promote(here, served.project, version)
        seconds.append(noticed(there, served.project, version))
    assert here.post(f"/v1/projects/{served.project}/rollback", json={}).status_code == 200
    seconds.append(noticed(there, served.project, 1))
    sys.stdout.write(f"seconds until the other gateway answered by it: {seconds}\n")
    here.patch(f"/v1/projects/{served.project}", json={"keep_images": "all"})
    wait_for(lambda: models.project(served.project).keep_images == "all", "the change")


def test_a_project_that_a_gateway_has_never_heard_of_is_asked_after_at_once(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    (_, here), (_, there) = gateways.start(), gateways.start(refresh_seconds=NEVER)
    served = serve(here, database, storage, artifacts[0])
    answer = predict(there, served.project)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"]["version"] == 1


def _in_production(models: ModelCache, project: UUID) -> bool:
    return models.knows(project) and models.project(project).production is not None


def noticed(client: TestClient, project: UUID, version: int) -> float:
    """Return the seconds until the project is answered by the version; it never fails."""
    started = time.monotonic()

    def answers_by_it() -> bool:
        answer = predict(client, project)
        assert answer.status_code == 200, answer.text
        return bool(answer.json()["model"]["version"] == version)

    wait_for(answers_by_it, "the promotion", 30)
    return time.monotonic() - started


def test_what_is_deleted_on_one_gateway_is_gone_on_the_other(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    (_, here), (_, there) = gateways.start(), gateways.start()
    served, kept = (serve(here, database, storage, artifacts[0]) for _ in range(2))
    (spare,) = add_versions(database, storage, kept.project, artifacts[1:2])
    path = f"/v1/models/{spare}/predict"
    # What is no image brings the version into memory and decides on nothing.
    assert there.post(path, content=b"x", headers=PNG).status_code == 422
    assert predict(there, served.project).status_code == 200
    assert here.delete(f"/v1/models/{spare}").status_code == 204

    def gone(path: str) -> bool:
        return there.post(path, content=b"x", headers=PNG).status_code == 404

    wait_for(lambda: gone(path), "the version's end", 30)
    records = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: here.get(records).json()["items"], "the record")
    assert here.delete(f"/v1/projects/{served.project}").status_code == 204
    wait_for(lambda: gone(served.predict), "the project's end", 30)
    wait_for(lambda: metric(there, "shotline_models_resident") == 1, "the model's end", 30)
    assert predict(there, kept.project).status_code == 200


def test_a_look_that_finds_nothing_new_reads_one_row(
    app: FastAPI, client: TestClient, database: Database, storage: LocalStorage,
    artifacts: list[Artifact],
) -> None:  # fmt: skip
    served = [serve(client, database, storage, artifacts[0]) for _ in range(3)]
    models = predictions_of(app).models
    models.refresh()
    with database.unit_of_work() as session:
        project_rows.note_change(session, served[0].project)
    with database.reading() as session:
        seen = repository.revision(session).last
        assert list(repository.served(session, since=seen - 1)) == [served[0].project]
        assert set(repository.served(session)) >= {one.project for one in served}
    models.refresh()
    with statements(models._database) as sent:
        models.refresh()
    mine = [statement for statement in sent if "api_keys" not in statement]
    assert len({*mine}) == 1
    assert "FROM serving" in mine[0]


def test_changes_are_counted_in_the_order_of_their_commits(database: Database) -> None:
    projects = []
    for name in ("one", "two"):
        with database.unit_of_work() as session:
            project = Project(name=name, name_key=name, view={})
            session.add(project)
            session.flush()
            projects.append(project.id)

    def change(project: UUID) -> None:
        with database.unit_of_work() as session:
            project_rows.note_change(session, project)

    def revisions() -> list[int]:
        with database.reading() as session:
            return [session.get_one(Project, one).revision for one in projects]

    with ThreadPoolExecutor(1) as thread:
        with database.unit_of_work() as session:
            project_rows.note_change(session, projects[0])
            other = thread.submit(change, projects[1])
            # It cannot pass: whoever sees its number would miss the one that is still open.
            assert revisions() == [0, 0]
        other.result(30)
    assert revisions() == [1, 2]

    def change_and_fail() -> None:
        with database.unit_of_work() as session:
            project_rows.note_change(session, projects[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change_and_fail()
    assert revisions() == [1, 2]


def test_a_database_restored_from_a_backup_is_read_anew(
    app: FastAPI, client: TestClient, database: Database, storage: LocalStorage,
    artifacts: list[Artifact],
) -> None:  # fmt: skip
    served = serve(client, database, storage, artifacts[0])
    add_versions(database, storage, served.project, artifacts[1:2])
    with database.reading() as session:
        before = repository.revision(session)
    promote(client, served.project, 2)
    with database.unit_of_work() as session:
        session.execute(update(Serving).values(revision=before.last - 1))
        session.execute(update(Project).values(keep_images="all", revision=0))
    models = predictions_of(app).models
    models.refresh()
    assert models.project(served.project).keep_images == "all"


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_a_broken_artifact_is_served_again_once_it_is_restored(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact],
    how: str,
) -> None:  # fmt: skip
    _, client = gateways.start()
    broken, sound = (serve(client, database, storage, made) for made in artifacts[:2])
    assert predict(client, broken.project).status_code == 200
    path = next(storage.root.glob(f"??/??/{blob_of(database, broken.model)}"))
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    _, fresh = gateways.start()
    assert_problem(predict(fresh, broken.project), 500, "damaged")
    assert predict(fresh, sound.project).status_code == 200
    assert predict(client, broken.project).status_code == 200  # whose memory is sound
    assert_problem(predict(fresh, broken.project), 500, "damaged")
    path.write_bytes(data)
    wait_for(lambda: predict(fresh, broken.project).status_code == 200, "the model")
    assert metric(fresh, "shotline_models_resident") == 2


def test_many_who_ask_first_have_the_model_read_once(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    app, client = gateways.start(model_bytes=MODEL, refresh_seconds=NEVER)
    wanted, other = (serve(client, database, storage, made) for made in artifacts[:2])
    models = predictions_of(app).models
    assert predict(client, other.project).status_code == 200
    assert models.resident(wanted.model) is None  # the other one needed its place
    assert models.resident(other.model) is not None
    before = metric(client, "shotline_models_loaded_total")
    reading, go_on = threading.Event(), threading.Event()
    read = storage.read

    def held(sha256: str) -> bytes:
        reading.set()
        assert go_on.wait(30)
        return read(sha256)

    monkeypatch.setattr(storage, "read", held)
    with ThreadPoolExecutor(6) as threads:
        asked = [threads.submit(predict, client, wanted.project, n) for n in range(6)]
        assert reading.wait(30)
        # What is in memory is answered meanwhile.
        assert predict(client, other.project).status_code == 200
        go_on.set()
        assert {future.result(30).status_code for future in asked} == {200}
    assert metric(client, "shotline_models_loaded_total") == before + 1
    assert metric(client, "shotline_models_resident_bytes") == MODEL


def test_a_model_that_never_fits_says_so(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    _, client = gateways.start(model_bytes=MODEL - 1)
    served = serve(client, database, storage, artifacts[0])
    response = predict(client, served.project)
    problem = assert_problem(response, 409, "conflict", names="3 classes take", field="model")
    assert "SHOTLINE_PREDICTION_MODEL_BYTES" in problem["fix"]


def test_versions_out_of_production_leave_before_the_others(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    app, client = gateways.start(model_bytes=2 * MODEL, refresh_seconds=NEVER)
    served = serve(client, database, storage, artifacts[0])
    spares = add_versions(database, storage, served.project, artifacts[1:])
    models = predictions_of(app).models
    assert predict(client, served.project).status_code == 200
    for spare in (*spares, *spares):
        path = f"/v1/models/{spare}/predict"
        assert client.post(path, content=tiny.photograph(0, 1), headers=PNG).status_code == 200
        assert models.resident(served.model) is not None
    assert metric(client, "shotline_models_resident") == 2
    assert metric(client, "shotline_models_evicted_total") == 3
    assert predict(client, served.project).status_code == 200


def test_a_gateway_that_starts_serves_before_everything_is_in_memory(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, client = gateways.start()
    served: list[Served] = [serve(client, database, storage, made) for made in artifacts]
    app, fresh = gateways.start()
    wait_for(lambda: metric(fresh, "shotline_models_resident") == 3, "the models in production")
    go_on = threading.Event()
    slow = blob_of(database, served[0].model)
    read = storage.read

    def held(sha256: str) -> bytes:
        assert sha256 != slow or go_on.wait(30)
        return read(sha256)

    monkeypatch.setattr(storage, "read", held)
    app, fresh = gateways.start()
    assert predict(fresh, served[1].project).status_code == 200
    assert predictions_of(app).models.resident(served[0].model) is None
    go_on.set()
    wait_for(lambda: metric(fresh, "shotline_models_resident") == 3, "the rest")


def test_models_in_production_wait_for_the_encoder(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact],
    encoder: ImageEncoder,
) -> None:  # fmt: skip
    _, client = gateways.start()
    served = serve(client, database, storage, artifacts[0])
    loaded = threading.Event()

    def load() -> ImageEncoder:
        assert loaded.wait(30)
        return encoder

    threading.Timer(0.2, loaded.set).start()
    app, fresh = gateways.start(load)
    models = predictions_of(app).models
    wait_for(lambda: models.resident(served.model), "the model")
    assert predict(fresh, served.project).status_code == 200


def test_production_is_loaded_without_the_database(
    gateways: Gateways, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    app, client = gateways.start(model_bytes=MODEL, refresh_seconds=NEVER)
    served = [serve(client, database, storage, made) for made in artifacts[:2]]
    (spare,) = add_versions(database, storage, served[0].project, artifacts[2:])
    models = predictions_of(app).models
    models._database = Database("postgresql+psycopg://x@127.0.0.1:1/x", connect_timeout=1)
    for number in range(4):
        answer = predict(client, served[number % 2].project)
        assert answer.json()["model"]["id"] == str(served[number % 2].model)
    path = f"/v1/models/{spare}/predict"
    response = client.post(path, content=tiny.photograph(0, 1), headers=PNG)
    assert_problem(response, 503, "unavailable", names="database")
