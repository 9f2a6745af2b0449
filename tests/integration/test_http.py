"""What surrounds every request."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import OperationalError
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import SecretStr, TypeAdapter
from sqlalchemy import event, exc
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.core.database import Database, after_commit
from app.core.errors import Forbidden
from app.core.ids import new_id
from app.core.queue import TUNE, CeleryQueue, InMemoryQueue, send_tuning
from app.core.settings import (
    AuthSettings,
    LimitSettings,
    QueueSettings,
    ServerSettings,
    Settings,
)
from app.core.tables import Project
from app.http.authentication import RequiresRole
from app.http.gateway import GatewayDep, SessionDep
from app.main import ROUTERS, create_app
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.schemas import PredictionOut, ResultsOut
from models.errors import StorageFull
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for


@pytest.fixture
def limits() -> LimitSettings:
    return LimitSettings(body_bytes=1000)


def test_unknown_address(client: TestClient) -> None:
    assert_problem(client.get("/v1/nowhere"), 404, "not-found", names="/v1/nowhere")


def test_wrong_method(client: TestClient) -> None:
    response = client.put("/livez")
    assert_problem(response, 405, "method-not-allowed", names=("/livez", "PUT"))
    assert response.headers["allow"] == "GET"
    several = client.put(f"/v1/projects/{new_id()}")
    assert_problem(several, 405, "method-not-allowed")
    assert several.headers["allow"] == "DELETE, GET, PATCH"


def test_validation_names_the_field_and_the_value(client: TestClient) -> None:
    response = client.get("/v1/keys", params={"limit": 0})
    assert_problem(response, 422, "bad-input", names=("limit", "'0'"), field="limit")


def test_validation_lists_every_field(client: TestClient) -> None:
    problem = assert_problem(client.post("/v1/keys", json={"role": "king"}), 422, "bad-input")
    assert {entry["field"] for entry in problem["errors"]} == {"name", "role"}


def test_validation_lists_no_more_than_a_person_reads(client: TestClient) -> None:
    body = {"long": ["x" * 300]} | {str(n): n for n in range(50)}
    problem = client.post("/v1/projects", json=body).json()
    assert len(problem["errors"]) == 20
    assert max(len(entry["detail"]) for entry in problem["errors"]) < 200


def test_broken_json(client: TestClient) -> None:
    response = client.post("/v1/keys", content=b"{", headers={"content-type": "application/json"})
    assert_problem(response, 422, "bad-input", names="not JSON", field="body")


def test_bad_cursor(client: TestClient) -> None:
    response = client.get("/v1/keys", params={"cursor": "x*"})
    assert_problem(response, 400, "bad-request", names="x*", field="cursor")


def test_body_over_the_limit_by_length(client: TestClient) -> None:
    response = client.post("/v1/keys", content=b"x" * 1001)
    assert_problem(response, 413, "too-large", names=("1001", "1000"), field="body")


def test_body_over_the_limit_without_a_length(client: TestClient) -> None:
    response = client.post(
        "/v1/keys",
        content=(b"x" * 300 for _ in range(4)),
        headers={"content-type": "application/json"},
    )
    assert_problem(response, 413, "too-large", names="1000", field="body")


def test_nonsense_length(client: TestClient) -> None:
    response = client.post("/v1/keys", content=b"x", headers={"content-length": "-1"})
    assert_problem(response, 400, "bad-request", names="-1", field="Content-Length")


def test_unforeseen_error_shows_no_stack_trace(app: FastAPI, client: TestClient) -> None:
    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("the secret inside")

    response = client.get("/boom")
    assert_problem(response, 500, "internal")
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_full_disk(app: FastAPI, client: TestClient) -> None:
    @app.get("/full")
    def full() -> None:
        raise StorageFull("The disk is full.", fix="Free space.")

    @app.get("/spool")
    def spool() -> None:
        raise OSError(28, "No space left on device")

    assert_problem(client.get("/full"), 507, "storage-full")
    assert_problem(client.get("/spool"), 507, "storage-full")


def test_commit_happens_before_the_answer(
    app: FastAPI, client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    """A commit that fails is a 500, not a 200 that was already sent; and no message goes out."""
    tuning = new_id()

    @app.post("/fails")
    def fails(session: SessionDep, gateway: GatewayDep) -> None:
        session.add(Project(name="kept?", name_key="kept?", view={}))
        send_tuning(session, gateway.queue, tuning)
        event.listen(session, "before_commit", _refuse)

    def _refuse(_: Session) -> None:
        raise RuntimeError("commit refused")

    assert_problem(client.post("/fails"), 500, "internal")
    assert queue.sent == []
    with database.reading() as session:
        assert session.query(Project).count() == 0


def test_messages_follow_the_commit(
    app: FastAPI, client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    seen: list[int] = []

    @app.post("/sends")
    def sends(session: SessionDep, gateway: GatewayDep) -> None:
        session.add(Project(name="new", name_key="new", view={}))
        send_tuning(session, gateway.queue, new_id())
        after_commit(session, lambda: seen.append(_projects(database)))
        session.flush()
        with database.reading():
            seen.append(_projects(database))

    assert client.post("/sends").status_code == 200
    assert seen == [0, 1]
    assert [name for name, _ in queue.sent] == ["shotline.tune"]


def test_a_message_that_cannot_be_sent_does_not_undo_the_commit(
    app: FastAPI, client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    queue.error = ConnectionError("no Redis")

    @app.post("/sends")
    def sends(session: SessionDep, gateway: GatewayDep) -> None:
        session.add(Project(name="new", name_key="new", view={}))
        send_tuning(session, gateway.queue, new_id())

    assert client.post("/sends").status_code == 200
    assert _projects(database) == 1


def _projects(database: Database) -> int:
    with database.reading() as session:
        return session.query(Project).count()


def test_lost_database_is_503(app: FastAPI, client: TestClient) -> None:
    @app.get("/lost")
    def lost(session: SessionDep) -> None:
        raise exc.OperationalError("SELECT 1", {}, Exception("connection refused"))

    response = client.get("/lost")
    assert_problem(response, 503, "unavailable")
    assert int(response.headers["retry-after"]) >= 1


def test_a_locked_sqlite_is_503(
    app: FastAPI, client: TestClient, database: Database, database_kind: str
) -> None:
    if database_kind != "sqlite":
        pytest.skip("PostgreSQL has no lock on the whole database")
    with database.unit_of_work() as session:
        session.add(Project(name="a", name_key="a", view={}))
        session.flush()
        response = client.post("/v1/keys", json={"name": "x", "role": "viewer"})
    assert_problem(response, 503, "unavailable")


def test_more_writers_than_threads_hold_each_other_up_no_longer_than_they_must(
    client: TestClient,
) -> None:
    made = client.post("/v1/projects", json={"name": "busy"}).json()["id"]

    def change(number: int) -> int:
        return client.patch(f"/v1/projects/{made}", json={"name": f"busy {number}"}).status_code

    with ThreadPoolExecutor(60) as threads:
        assert list(threads.map(change, range(60))) == [200] * 60


def test_reading_does_not_wait_for_a_writer(client: TestClient, database: Database) -> None:
    with database.unit_of_work() as session:
        session.add(Project(name="a", name_key="a", view={}))
        session.flush()
        assert client.get("/v1/keys").status_code == 200


def test_a_reading_session_cannot_write(database: Database) -> None:
    with database.reading() as session:
        session.add(Project(name="a", name_key="a", view={}))
        with pytest.raises(exc.DBAPIError):
            session.flush()


def test_request_ids(client: TestClient) -> None:
    assert client.get("/livez").headers["x-request-id"]
    echoed = client.get("/livez", headers={"x-request-id": "line-3.42"})
    assert echoed.headers["x-request-id"] == "line-3.42"
    replaced = client.get("/livez", headers={"x-request-id": "a b\tc"})
    assert replaced.headers["x-request-id"] != "a b\tc"


def test_every_answer_has_safe_headers(client: TestClient) -> None:
    for path in ("/livez", "/v1/keys", "/v1/nowhere"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_health(client: TestClient, queue: InMemoryQueue) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    wait_for(lambda: client.get("/readyz").json()["status"] == "ready", "readiness", 5)
    ready = client.get("/readyz")
    assert ready.status_code == 200
    parts = ("keys", "database", "audit", "storage", "disk", "queue", "backbone", "models")
    assert ready.json()["parts"] == dict.fromkeys(parts, "ok")
    queue.error = ConnectionError("no Redis")
    degraded = client.get("/readyz")
    assert degraded.status_code == 200
    assert degraded.json()["status"] == "degraded"
    assert degraded.json()["parts"]["queue"] == "failed"


def test_not_ready_before_keys_and_models_were_read(
    settings: Settings, queue: InMemoryQueue, encoder: ImageEncoder, tmp_path: Path
) -> None:
    empty = Database(f"sqlite:///{tmp_path / 'empty.db'}")  # not migrated: nothing can be read
    app = create_app(settings, database=empty, queue=queue, load_encoder=lambda: encoder)
    with TestClient(app) as client:
        wait_for(lambda: client.get("/readyz").json()["parts"]["backbone"] == "ok", "the encoder")
        response = client.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "not ready")
        parts = response.json()["parts"]
        assert parts["keys"] == parts["models"] == parts["database"] == "failed"


def test_redis_that_refuses_is_noticed_at_once(tmp_path: Path) -> None:
    url = SecretStr(f"redis+socket://{tmp_path / 'none.sock'}")
    queue = CeleryQueue(QueueSettings(url=url))
    for action in (queue.check, lambda: queue.send(TUNE, "id")):
        started = time.monotonic()
        with pytest.raises(OperationalError):
            action()
        assert time.monotonic() - started < 1.0
    queue.close()


def test_degraded_where_storage_cannot_be_written(client: TestClient, settings: Settings) -> None:
    settings.blob_folder.parent.mkdir(parents=True, exist_ok=True)
    shield = settings.blob_folder
    if shield.exists():
        for path in sorted(shield.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        shield.rmdir()
    shield.write_text("a file where a folder should be")
    response = client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "degraded")
    assert response.json()["parts"]["storage"] == "failed"


def test_metrics_name_routes_not_ids(client: TestClient) -> None:
    client.delete(f"/v1/keys/{new_id()}")
    text = client.get("/metrics").text
    assert 'route="/v1/keys/{key}",status="404"' in text
    assert "shotline_disk_free_bytes" in text


def test_authentication_off_only_on_loopback(settings: Settings) -> None:
    off = AuthSettings(auth="off")
    open_to_all = ServerSettings(home=settings.home, host="0.0.0.0")
    with pytest.raises(Forbidden, match=r"0\.0\.0\.0"):
        create_app(settings.model_copy(update={"auth": off, "server": open_to_all}))


def test_authentication_off(settings: Settings, database: Database, queue: InMemoryQueue) -> None:
    off = settings.model_copy(update={"auth": AuthSettings(auth="off")})
    with TestClient(create_app(off, database=database, queue=queue)) as client:
        assert client.get("/v1/keys/current").json()["role"] == "admin"


def test_the_documentation_dials_nowhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")
    for path in ("/docs/start.js", "/docs/swagger-ui.js", "/docs/swagger-ui.css", "/openapi.json"):
        assert f'"{path}"' in page.text + client.get("/docs/start.js").text
        assert client.get(path).status_code == 200


def _routes() -> Iterator[APIRoute]:
    for router in ROUTERS:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


def test_every_route_under_v1_says_a_role() -> None:
    roles = {route.path: _roles(route.dependant) for route in _routes()}
    assert roles["/v1/keys"] == ["admin"]
    assert [path for path, found in roles.items() if path.startswith("/v1") and not found] == []


def _roles(dependant: Dependant) -> list[str]:
    own = [dependant.call.role] if isinstance(dependant.call, RequiresRole) else []
    return own + [role for inner in dependant.dependencies for role in _roles(inner)]


def test_openapi_is_complete(app: FastAPI) -> None:
    document = app.openapi()
    assert document == app.openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            assert operation.get("tags"), (method, path)
            assert "default" in operation["responses"], (method, path)
            if path.startswith("/v1"):
                assert operation["security"], (method, path)
            for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                assert content.keys() & {"example", "examples"}, (method, path, kind)
    assert "HTTPValidationError" not in str(document)
    answers = document["paths"]["/v1/projects/{project}/predict"]["post"]["responses"]
    examples = answers["200"]["content"]["application/json"]["examples"]
    PredictionOut.model_validate(examples["one"]["value"])
    ResultsOut.model_validate(examples["several"]["value"])
    fixes = {example["value"]["fix"] for example in _problem_examples(document)}
    assert len(fixes) > 15


def _problem_examples(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                content = answer.get("content", {}).get("application/problem+json", {})
                yield from content.get("examples", {}).values()


def test_every_answer_has_an_example_that_fits(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    fitted = 0
    for route in _routes():
        if route.response_model is None or not route.include_in_schema:
            continue
        for method in route.methods or ():
            answers = paths[route.path_format][method.lower()]["responses"]
            success = next(answers[code] for code in answers if code.startswith("2"))
            content = success["content"].get("application/json")
            if content is not None and "example" in content:
                TypeAdapter(route.response_model).validate_python(content["example"])
                fitted += 1
    assert fitted > 15


def test_every_body_has_an_example_that_is_taken(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    for path in ("/v1/projects", "/v1/keys"):
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]
        assert client.post(path, json=schema["example"]).status_code == 201


def test_no_thread_outlives_the_gateway(settings: Settings, queue: InMemoryQueue) -> None:
    with TestClient(create_app(settings, queue=queue)):
        assert any(thread.name == "keys" for thread in threading.enumerate())
    assert not any(thread.name == "keys" for thread in threading.enumerate())


@pytest.mark.parametrize("written", ["4\n", " 4", "4_0", "+4", "4.0", "٤", "0x4"])
def test_a_number_in_an_address_has_one_form(client: TestClient, written: str) -> None:
    response = client.get("/v1/keys", params={"limit": written})
    assert_problem(response, 422, "bad-input", names="valid integer", field="limit")


@pytest.mark.parametrize("written", ["0.5", "1767225600", "-1", "1e9", " 1 "])
def test_a_time_in_an_address_is_not_a_number(client: TestClient, written: str) -> None:
    response = client.get("/v1/audit", params={"since": written})
    assert_problem(response, 422, "bad-input", names="2026-11-24T08:15:30Z", field="since")


def test_an_address_beside_an_id_is_not_taken_for_one(client: TestClient) -> None:
    response = client.delete("/v1/keys/current")
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == "GET"
