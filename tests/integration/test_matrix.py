"""Every route with every kind of key: as the table in `docs/security.md` says.

Print that table with `python -m tests.integration.test_matrix`.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from httpx2 import Response
from starlette.testclient import TestClient

from app.core.access import ROLES, Principal
from app.core.database import Database
from app.core.ids import new_id
from app.core.settings import AuthSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import KeyRole, Tuning
from app.http.authentication import RequiresRole
from app.http.routing import Route
from app.keys import service
from app.main import ROUTERS
from app.searches.states import new_search
from models.artifact import Artifact
from models.search.budget import SearchBudget
from tests.integration import serving, tiny
from tests.integration.conftest import MakeClient
from tests.integration.files import zip_of
from tests.integration.services import wait_for

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
# What a key of another project is answered, where it is not a 404.
OTHERS = {
    "GET /v1/audit": "its own",
    "GET /v1/keys": "its own",
    "GET /v1/keys/current": "itself",
    "GET /v1/projects": "its own",
    "POST /v1/keys": "403",
    "POST /v1/projects": "403",
}
# Of these alone the body is looked at before the thing that the address names.
BODIES = {
    "PATCH /v1/images/{image}": {"label": "good"},
    "POST /v1/keys": {"name": "x", "role": "viewer"},
    "POST /v1/predictions/{prediction}/feedback": {"label": "good"},
    "POST /v1/predictions/{prediction}/review": {"action": "keep"},
    "POST /v1/projects": {"name": "x"},
}
SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Cell(NamedTuple):
    """A route and the least role that may ask it; None where no key is needed."""

    method: str
    path: str
    role: KeyRole | None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def _cells() -> Iterator[Cell]:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            roles = _roles(route.dependant)
            assert len(roles) <= 1, route.path
            for method in sorted(route.methods):
                yield Cell(method, route.path_format, roles[0] if roles else None)


def _roles(dependant: Dependant) -> list[KeyRole]:
    own = [dependant.call.role] if isinstance(dependant.call, RequiresRole) else []
    return own + [role for inner in dependant.dependencies for role in _roles(inner)]


CELLS = sorted(_cells(), key=lambda cell: (cell.path, cell.method))
KEYED = [cell for cell in CELLS if cell.role is not None]


def render() -> str:
    lines = [
        "| route | least role | a key of another project |",
        "|---|---|---|",
    ]
    for cell in CELLS:
        others = "" if cell.role is None else OTHERS.get(cell.name, "404")
        lines.append(f"| `{cell.name}` | {cell.role or 'no key'} | {others} |")
    return "\n".join(lines) + "\n"


def test_the_page_has_this_table() -> None:
    assert render() in PAGE.read_text(encoding="utf-8")


def test_the_table_has_every_route(app: FastAPI) -> None:
    described = {
        f"{method.upper()} {path}"
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    assert described <= {cell.name for cell in CELLS}


def test_no_key_is_needed_for_health_and_documentation_alone() -> None:
    assert {cell.path for cell in CELLS if cell.role is None} == {
        "/docs",
        "/docs/start.js",
        "/docs/swagger-ui.css",
        "/docs/swagger-ui.js",
        "/livez",
        "/metrics",
        "/readyz",
    }


def test_keys_come_before_bodies_on_every_route() -> None:
    routes = [route for router in ROUTERS for route in router.routes]
    keyed = [it for it in routes if isinstance(it, APIRoute) and _roles(it.dependant)]
    assert len(keyed) > 40
    assert [it.path for it in keyed if not isinstance(it, Route)] == []


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Who may ask is decided before any database is."""
    kind: str = request.param
    return kind


@pytest.fixture
def settings(settings: Settings) -> Settings:
    auth = AuthSettings(auth_failures=100_000)  # a test of their own limits them
    return settings.model_copy(update={"auth": auth})


@dataclass(frozen=True)
class World:
    """A thing of each kind in projects that `stranger` does not see, and a key of each role."""

    things: dict[str, str]
    clients: dict[KeyRole, TestClient]
    stranger: TestClient
    refused: dict[str, TestClient]

    def ask(self, client: TestClient, cell: Cell, *, real: bool) -> Response:
        """Ask a route, of what there is or of what nobody ever made."""
        given = self.things if real else dict.fromkeys(self.things, str(new_id()))
        path = re.sub(r"\{(\w+)\}", lambda found: given[found[1]], cell.path)
        body = BODIES.get(cell.name) if real else None
        response = client.request(cell.method, path, json=body)
        for name, value in SAFE.items():
            assert response.headers[name] == value, (cell.name, name)
        assert "server" not in response.headers
        return response


@pytest.fixture
def world(
    app: FastAPI,
    make_client: MakeClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
) -> World:
    admin = make_client("admin")
    served = serving.serve(admin, database, storage, artifacts[0], keep_images="all")
    kind = {"content-type": "application/zip"}
    archive = zip_of({f"good/{n}.png": tiny.photograph(0, n) for n in range(2)})
    labelled = serving.make_project(admin)
    images = f"/v1/projects/{labelled}/images"
    assert admin.post(images, content=archive, headers=kind).status_code == 200
    batch = admin.post(f"/v1/projects/{served.project}/batches", content=archive, headers=kind)
    png = {"content-type": "image/png"}
    decided = admin.post(served.predict, content=tiny.photograph(0, 1), headers=png)
    kept = f"/v1/predictions/{decided.json()['prediction_id']}/image"
    wait_for(lambda: admin.get(kept).status_code == 200, "the kept image")
    tuning = admin.get(f"/v1/projects/{served.project}/tunings").json()["items"][0]
    with database.unit_of_work() as session:
        session.get_one(Tuning, UUID(tuning["id"])).search = dict(new_search(SearchBudget()))
    classes = admin.get(f"/v1/projects/{labelled}").json()["classes"]
    key = admin.post("/v1/keys", json={"name": "spare", "role": "viewer"}).json()
    return World(
        things={
            "project": str(served.project),
            "model": str(served.model),
            "alias": "production",
            "image": admin.get(images).json()["items"][0]["id"],
            "batch": batch.json()["id"],
            "prediction": decided.json()["prediction_id"],
            "tuning": tuning["id"],
            "class": classes[0]["id"],
            "key": key["id"],
        },
        clients={role: make_client(role) for role in ROLES},
        stranger=make_client("admin", serving.make_project(admin)),
        refused=_refused_clients(app, make_client, database),
    )


def _refused_clients(
    app: FastAPI, make_client: MakeClient, database: Database
) -> dict[str, TestClient]:
    clients = {name: make_client("admin") for name in ("none", "unknown", "expired", "revoked")}
    del clients["none"].headers["Authorization"]
    clients["unknown"].headers["Authorization"] = "Bearer sl_aaaaaaaa_" + "x" * 43
    now, root = datetime.now(UTC), Principal(None, "test", "admin")
    for name in ("expired", "revoked"):
        with database.unit_of_work() as session:
            made = service.create_key(
                session, name=name, role="admin", expires_at=now + timedelta(hours=1)
            )
            if name == "expired":
                made.row.expires_at = now - timedelta(seconds=1)
            else:
                service.revoke_key(session, root, made.row.id)
        clients[name].headers["Authorization"] = f"Bearer {made.plaintext}"
    app.state.gateway.keys.refresh()
    return clients


def test_every_route_with_every_kind_of_key(world: World) -> None:
    for cell in KEYED:
        assert cell.role is not None
        for name, client in world.refused.items():
            response = world.ask(client, cell, real=True)
            assert response.status_code == 401, (cell.name, name, response.text)
        for role in ROLES:
            allowed = ROLES.index(role) >= ROLES.index(cell.role)
            # What is allowed is asked of nothing that there is: it would be changed or deleted.
            response = world.ask(world.clients[role], cell, real=not allowed)
            assert (response.status_code in (401, 403)) == (not allowed), (cell.name, role)
            if not allowed:
                assert response.status_code == 403, (cell.name, role)


def test_every_route_with_a_key_of_another_project(world: World) -> None:
    for cell in KEYED:
        response = world.ask(world.stranger, cell, real=True)
        expected = OTHERS.get(cell.name, "404")
        status = int(expected) if expected.isdecimal() else 200
        assert response.status_code == status, (cell.name, response.text)
        # What it named itself is repeated in a refusal; of anything else it learns nothing.
        shown = response.text if status == 200 else ""
        assert [it for it in world.things.values() if it in shown] == [], cell.name
    for cell in KEYED:  # and nothing was changed by asking
        if cell.method == "GET" and not cell.path.endswith("/events"):
            still = world.ask(world.clients["admin"], cell, real=True).status_code
            assert still == (409 if cell.path.endswith("/results") else 200), cell.name


if __name__ == "__main__":
    sys.stdout.write(render())
