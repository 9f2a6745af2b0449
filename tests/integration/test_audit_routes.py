"""No route changes anything without an entry in the same transaction."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import pytest
import structlog
from fastapi import FastAPI
from fastapi.routing import APIRoute
from httpx2 import Response
from sqlalchemy import event, select
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.storage import LocalStorage
from app.core.tables import ApiKey, AuditEntry
from app.main import ROUTERS
from models.artifact import Artifact
from tests.integration import serving, tiny
from tests.integration.files import zip_of
from tests.integration.serving import Served

CHANGES = {"POST", "PUT", "PATCH", "DELETE"}

# Routes that change nothing which an entry would speak of.
EXEMPT = {
    "POST /v1/projects/{project}/predict": "each decision has a record of its own",
    "POST /v1/models/{model}/predict": "each decision has a record of its own",
}
ROUTES = sorted(
    f"{method} {route.path_format}"
    for router in ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods & CHANGES
)


@dataclass(frozen=True)
class World:
    """A client with an admin key and a project with a version in production, another beside it."""

    client: TestClient
    served: Served
    spare_model: UUID
    add_version: Callable[[UUID], UUID]

    @property
    def project(self) -> str:
        return f"/v1/projects/{self.served.project}"

    def fresh(self) -> str:
        """Make a project with two classes and four images of each; return its address."""
        made = self.client.post("/v1/projects", json={"name": f"fresh {new_id()}"})
        address = f"/v1/projects/{made.json()['id']}"
        assert self.upload(address).status_code == 200
        return address

    def upload(self, project: str, first: int = 0) -> Response:
        files = {
            f"{name}/{number}.png": tiny.photograph(label, number)
            for label, name in enumerate(("good", "scratch"))
            for number in range(first, first + 4)
        }
        return self.post(f"{project}/images", zip_of(files))

    def post(self, address: str, archive: bytes) -> Response:
        headers = {"content-type": "application/zip"}
        return self.client.post(address, content=archive, headers=headers)

    def judged(self) -> tuple[str, str]:
        """Return a fresh project that has decided on an image and kept it, and that prediction."""
        address = self.fresh()
        self.client.patch(address, json={"keep_images": "all"})
        project = UUID(address.rpartition("/")[2])
        self.add_version(project)
        serving.promote(self.client, project, 1)
        png = {"content-type": "image/png"}
        image = tiny.photograph(0, 500)
        made = self.client.post(f"{address}/predict", content=image, headers=png)
        return address, f"/v1/predictions/{made.json()['prediction_id']}"

    def ids(self, address: str) -> list[str]:
        return [entry["id"] for entry in self.client.get(address).json()["items"]]

    def classes(self, project: str) -> list[str]:
        return [entry["id"] for entry in self.client.get(project).json()["classes"]]

    def batch(self) -> Response:
        return self.post(f"{self.project}/batches", zip_of({"1.png": tiny.photograph(0, 1)}))

    def tuning(self) -> Response:
        return self.client.post(f"{self.fresh()}/tunings", json={"recipe": tiny.RECIPE})


Prepared = Callable[[], Response]


def key_made(world: World) -> Prepared:
    return lambda: world.client.post("/v1/keys", json={"name": "x", "role": "viewer"})


def key_revoked(world: World) -> Prepared:
    key = key_made(world)().json()["id"]
    return lambda: world.client.delete(f"/v1/keys/{key}")


def project_made(world: World) -> Prepared:
    body = {"name": f"made {new_id()}", "classes": [{"name": "good"}]}
    return lambda: world.client.post("/v1/projects", json=body)


def project_changed(world: World) -> Prepared:
    return lambda: world.client.patch(world.project, json={"keep_images": "all"})


def project_deleted(world: World) -> Prepared:
    address = world.fresh()
    return lambda: world.client.delete(address)


def class_added(world: World) -> Prepared:
    address = world.fresh()
    return lambda: world.client.post(f"{address}/classes", json={"name": "dent"})


def classes_moved(world: World) -> Prepared:
    address = world.fresh()
    order = world.classes(address)[::-1]
    return lambda: world.client.put(f"{address}/class-order", json={"classes": order})


def class_changed(world: World) -> Prepared:
    address = world.fresh()
    first = f"{address}/classes/{world.classes(address)[0]}"
    return lambda: world.client.patch(first, json={"prompt_name": "flawless"})


def class_deleted(world: World) -> Prepared:
    address = world.fresh()
    made = world.client.post(f"{address}/classes", json={"name": "dent"}).json()
    last = f"{address}/classes/{made['classes'][-1]['id']}"
    return lambda: world.client.delete(last)


def images_sent(world: World) -> Prepared:
    address = world.fresh()
    return lambda: world.upload(address, first=4)


def image_relabelled(world: World) -> Prepared:
    image = world.ids(f"{world.fresh()}/images")[0]
    return lambda: world.client.patch(f"/v1/images/{image}", json={"label": "scratch"})


def image_deleted(world: World) -> Prepared:
    image = world.ids(f"{world.fresh()}/images")[0]
    return lambda: world.client.delete(f"/v1/images/{image}")


def tuning_started(world: World) -> Prepared:
    return world.tuning


def tuning_cancelled(world: World) -> Prepared:
    tuning = world.tuning().json()["id"]
    return lambda: world.client.post(f"/v1/tunings/{tuning}/cancel")


def examination_started(world: World) -> Prepared:
    address = world.fresh()
    return lambda: world.client.post(f"{address}/findings")


def model_deleted(world: World) -> Prepared:
    return lambda: world.client.delete(f"/v1/models/{world.spare_model}")


def promoted(world: World) -> Prepared:
    return lambda: world.client.put(f"{world.project}/aliases/production", json={"version": 2})


def rolled_back(world: World) -> Prepared:
    promoted(world)()
    return lambda: world.client.post(f"{world.project}/rollback", json={"reason": "false alarms"})


def gates_run(world: World) -> Prepared:
    return lambda: world.client.post(f"/v1/models/{world.spare_model}/gates")


def frozen(world: World) -> Prepared:
    address = f"{world.fresh()}/freeze"
    return lambda: world.client.put(address, json={"reason": "customer audit"})


def thawed(world: World) -> Prepared:
    address = f"{world.fresh()}/freeze"
    world.client.put(address, json={"reason": "customer audit"})
    return lambda: world.client.delete(address)


def shadow_switched(world: World) -> Prepared:
    return lambda: world.client.put(f"{world.project}/shadow", json={"enabled": True})


def feedback_given(world: World) -> Prepared:
    _, prediction = world.judged()
    return lambda: world.client.post(f"{prediction}/feedback", json={"label": "scratch"})


def reviewed(world: World) -> Prepared:
    _, prediction = world.judged()
    body = {"action": "relabel", "label": "good"}
    return lambda: world.client.post(f"{prediction}/review", json=body)


def tuned_again(world: World) -> Prepared:
    address, prediction = world.judged()
    world.client.post(f"{prediction}/review", json={"action": "relabel", "label": "good"})
    return lambda: world.client.post(f"{address}/review/tune", json={})


def batch_started(world: World) -> Prepared:
    return world.batch


def batch_cancelled(world: World) -> Prepared:
    batch = world.batch().json()["id"]
    return lambda: world.client.post(f"/v1/batches/{batch}/cancel")


def batch_deleted(world: World) -> Prepared:
    batch = world.batch().json()["id"]
    world.client.post(f"/v1/batches/{batch}/cancel")
    return lambda: world.client.delete(f"/v1/batches/{batch}")


# One for each route: what it needs is made, then the request is made ready.
REQUESTS: dict[str, Callable[[World], Prepared]] = {
    "POST /v1/keys": key_made,
    "DELETE /v1/keys/{key}": key_revoked,
    "POST /v1/projects": project_made,
    "PATCH /v1/projects/{project}": project_changed,
    "DELETE /v1/projects/{project}": project_deleted,
    "POST /v1/projects/{project}/classes": class_added,
    "PUT /v1/projects/{project}/class-order": classes_moved,
    "PATCH /v1/projects/{project}/classes/{class}": class_changed,
    "DELETE /v1/projects/{project}/classes/{class}": class_deleted,
    "POST /v1/projects/{project}/images": images_sent,
    "PATCH /v1/images/{image}": image_relabelled,
    "DELETE /v1/images/{image}": image_deleted,
    "POST /v1/projects/{project}/tunings": tuning_started,
    "POST /v1/tunings/{tuning}/cancel": tuning_cancelled,
    "POST /v1/projects/{project}/findings": examination_started,
    "DELETE /v1/models/{model}": model_deleted,
    "PUT /v1/projects/{project}/aliases/{alias}": promoted,
    "POST /v1/projects/{project}/rollback": rolled_back,
    "POST /v1/models/{model}/gates": gates_run,
    "PUT /v1/projects/{project}/freeze": frozen,
    "DELETE /v1/projects/{project}/freeze": thawed,
    "PUT /v1/projects/{project}/shadow": shadow_switched,
    "POST /v1/predictions/{prediction}/feedback": feedback_given,
    "POST /v1/predictions/{prediction}/review": reviewed,
    "POST /v1/projects/{project}/review/tune": tuned_again,
    "POST /v1/projects/{project}/batches": batch_started,
    "POST /v1/batches/{batch}/cancel": batch_cancelled,
    "DELETE /v1/batches/{batch}": batch_deleted,
}


@pytest.fixture
def world(
    client: TestClient, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> World:
    served = serving.serve(client, database, storage, artifacts[0])
    (spare,) = serving.add_versions(database, storage, served.project, artifacts[1:2])

    def add_version(project: UUID) -> UUID:
        return serving.add_versions(database, storage, project, artifacts[:1])[0]

    return World(client, served, spare, add_version)


@contextmanager
def transactions(database: Database, request_id: str) -> Iterator[list[list[str]]]:
    """Collect what a request's committed transactions write; other threads write meanwhile."""
    committed: list[list[str]] = []
    open_now: dict[object, list[str]] = {}

    def ours() -> bool:
        return structlog.contextvars.get_contextvars().get("request_id") == request_id

    def begun(connection: object) -> None:
        if ours():
            open_now[connection] = []

    def executed(connection: object, _: object, statement: str, *others: object) -> None:
        writes = statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE"))
        if writes and connection in open_now:
            open_now[connection].append(statement)

    def committing(connection: object) -> None:
        if connection in open_now:
            committed.append(open_now.pop(connection))

    hooks = {"begin": begun, "before_cursor_execute": executed, "commit": committing}
    for name, hook in hooks.items():
        event.listen(database.engine, name, hook)
    try:
        yield committed
    finally:
        for name, hook in hooks.items():
            event.remove(database.engine, name, hook)


def test_every_route_that_changes_something_is_tried_here() -> None:
    assert set(ROUTES) == {*REQUESTS, *EXEMPT}


@pytest.mark.parametrize("route", [route for route in ROUTES if route not in EXEMPT])
def test_a_route_leaves_an_entry_in_the_transaction_of_its_change(
    app: FastAPI, world: World, database: Database, route: str
) -> None:
    request = REQUESTS[route](world)
    request_id = f"audited-{new_id()}"
    world.client.headers["X-Request-Id"] = request_id
    with transactions(database, request_id) as committed:
        response = request()
    # Some requests are prepared by requests; only the one that is tried has this id.
    assert response.is_success, response.text
    writing = [statements for statements in committed if statements]
    assert writing
    for statements in writing:
        assert any("audit_entries" in statement for statement in statements), statements
        assert any("audit_" not in statement for statement in statements), statements
    with database.reading() as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.request_id == request_id)
        ).all()
        key = session.scalars(select(ApiKey).order_by(ApiKey.id)).first()
    assert entries
    assert key is not None
    assert {(entry.actor_id, entry.actor) for entry in entries} == {(key.id, "admin")}


def test_a_refused_request_leaves_none(world: World, database: Database) -> None:
    world.client.headers["X-Request-Id"] = "refused"
    taken = world.client.get(world.project).json()["name"]
    assert world.client.post("/v1/projects", json={"name": taken}).status_code == 409
    assert world.client.delete(f"/v1/models/{world.served.model}").status_code == 409
    with database.reading() as session:
        query = select(AuditEntry).where(AuditEntry.request_id == "refused")
        assert session.scalars(query).all() == []
