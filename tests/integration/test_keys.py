"""API keys: made, shown once, checked, revoked."""

import hashlib
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from app.core.access import Principal
from app.core.database import Database
from app.core.errors import Unauthenticated, Unavailable
from app.core.ids import new_id
from app.core.tables import ApiKey, KeyRole, Project
from app.keys import service
from app.keys.cache import KeyCache
from tests.integration.conftest import MakeClient
from tests.integration.problems import assert_problem


def test_missing_key(anonymous: TestClient) -> None:
    response = anonymous.get("/v1/keys")
    assert_problem(response, 401, "unauthenticated", names="no API key", field="Authorization")
    assert response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["wrong", "sl_aaaaaaaa_x", "sl_日本"])
def test_wrong_key(anonymous: TestClient, token: str) -> None:
    response = anonymous.get("/v1/keys", headers={b"Authorization": f"Bearer {token}".encode()})
    assert_problem(response, 401, "unauthenticated", field="Authorization")


def test_right_prefix_wrong_secret(client: TestClient, anonymous: TestClient) -> None:
    key = client.headers["Authorization"]
    response = anonymous.get("/v1/keys", headers={"Authorization": key[:-1] + "!"})
    problem = assert_problem(response, 401, "unauthenticated")
    assert key[-20:] not in str(problem)


def test_a_made_key_works_at_once_and_is_stored_hashed(
    client: TestClient, anonymous: TestClient, database: Database
) -> None:
    made = client.post("/v1/keys", json={"name": "検査 🔍", "role": "operator"})
    assert made.status_code == 201
    key = made.json()["key"]
    assert key.startswith(made.json()["prefix"])
    who = anonymous.get("/v1/keys/current", headers={"Authorization": f"Bearer {key}"})
    assert who.json() == {
        "id": made.json()["id"],
        "name": "検査 🔍",
        "role": "operator",
        "project": None,
    }
    with database.reading() as session:
        row = session.scalars(select(ApiKey).where(ApiKey.name == "検査 🔍")).one()
        assert row.sha256 == hashlib.sha256(key.encode()).hexdigest()
        assert key not in str(vars(row))
    assert key not in client.get("/v1/keys").text


def test_revoked_key_is_refused_at_once(client: TestClient, anonymous: TestClient) -> None:
    made = client.post("/v1/keys", json={"name": "x", "role": "viewer"}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert anonymous.get("/v1/keys/current", headers=headers).status_code == 200
    for _ in range(2):
        assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert_problem(anonymous.get("/v1/keys/current", headers=headers), 401, "unauthenticated")
    listed = {row["id"]: row for row in client.get("/v1/keys").json()["items"]}
    assert listed[made["id"]]["revoked_at"] is not None


def test_expired_key(app: FastAPI, anonymous: TestClient, database: Database) -> None:
    with database.unit_of_work() as session:
        made = service.create_key(
            session, name="brief", role="viewer", expires_at=datetime.now(UTC) + timedelta(hours=1)
        )
        made.row.expires_at = datetime.now(UTC) - timedelta(seconds=1)
    app.state.gateway.keys.refresh()
    response = anonymous.get(
        "/v1/keys/current", headers={"Authorization": f"Bearer {made.plaintext}"}
    )
    assert_problem(response, 401, "unauthenticated", names=("brief", "expired"))


def test_expiry_in_the_past(client: TestClient) -> None:
    never = {"name": "x", "role": "viewer", "expires_at": "9999-12-31T23:59:59-14:00"}
    assert_problem(client.post("/v1/keys", json=never), 422, "bad-input", field="expires_at")
    body = {"name": "x", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}
    response = client.post("/v1/keys", json=body)
    assert_problem(response, 422, "bad-input", names="2020-01-01", field="expires_at")


@pytest.mark.parametrize("name", ["", "  ", "a\u0000b", "\ud800", "x" * 101])
def test_bad_names(client: TestClient, database: Database, name: str) -> None:
    body = json.dumps({"name": name, "role": "viewer"}).encode()
    before = _count(database)
    response = client.post("/v1/keys", content=body, headers={"content-type": "application/json"})
    assert_problem(response, 422, "bad-name", field="name")
    assert _count(database) == before


def test_unknown_project(client: TestClient, database: Database) -> None:
    missing, before = str(new_id()), _count(database)
    response = client.post("/v1/keys", json={"name": "x", "role": "viewer", "project": missing})
    assert_problem(response, 404, "not-found", names=missing, field="project")
    assert _count(database) == before


def test_unknown_key(client: TestClient) -> None:
    missing = str(new_id())
    assert_problem(client.delete(f"/v1/keys/{missing}"), 404, "not-found", names=missing)


@pytest.mark.parametrize("role", ["viewer", "operator", "engineer"])
def test_only_admins_manage_keys(make_client: MakeClient, role: KeyRole) -> None:
    client = make_client(role)
    for response in (
        client.get("/v1/keys"),
        client.post("/v1/keys", json={"name": "x", "role": "viewer"}),
        client.delete(f"/v1/keys/{new_id()}"),
    ):
        assert_problem(response, 403, "forbidden", names=(role, "admin"))


def test_an_admin_of_one_project_stays_within_it(
    make_client: MakeClient, client: TestClient, database: Database
) -> None:
    with database.unit_of_work() as session:
        project = Project(name="one", name_key="one", view={})
        session.add(project)
    mine = make_client("admin", project.id)
    refused = mine.post("/v1/keys", json={"name": "x", "role": "viewer"})
    assert_problem(refused, 403, "forbidden")
    made = mine.post("/v1/keys", json={"name": "x", "role": "viewer", "project": str(project.id)})
    assert made.status_code == 201
    listed = mine.get("/v1/keys").json()["items"]
    assert {row["project"] for row in listed} == {str(project.id)}
    others = next(row for row in client.get("/v1/keys").json()["items"] if row["project"] is None)
    assert_problem(mine.delete(f"/v1/keys/{others['id']}"), 404, "not-found")


def test_keys_are_listed_page_by_page(client: TestClient) -> None:
    made = [
        client.post("/v1/keys", json={"name": f"k{n}", "role": "viewer"}).json()["id"]
        for n in range(5)
    ]
    found: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/keys", params=params).json()
        found += [row["id"] for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found[1:] == made


def test_the_first_key_is_made_once(database: Database) -> None:
    with database.unit_of_work() as session:
        first = service.create_first_key(session)
    with database.unit_of_work() as session:
        second = service.create_first_key(session)
    assert first is not None
    assert second is None


def test_a_slow_refresh_does_not_bring_a_revoked_key_back(database: Database) -> None:
    with database.unit_of_work() as session:
        made = service.create_key(session, name="line", role="operator")
    cache = KeyCache(database)
    reading, revoked = threading.Event(), threading.Event()
    real = cache._read

    def slow() -> Any:
        found = real()
        reading.set()
        assert revoked.wait(10)
        return found

    cache._read = slow  # type: ignore[method-assign]
    older = threading.Thread(target=cache.refresh)
    older.start()
    assert reading.wait(10)
    cache._read = real  # type: ignore[method-assign]
    with database.unit_of_work() as session:
        service.revoke_key(session, Principal(None, "test", "admin"), made.row.id)
    newer = threading.Thread(target=cache.refresh)
    newer.start()
    revoked.set()
    older.join()
    newer.join()
    with pytest.raises(Unauthenticated):
        cache.principal(made.plaintext)


def test_keys_go_on_without_the_database(database: Database) -> None:
    with database.unit_of_work() as session:
        made = service.create_key(session, name="line", role="operator")
    cache = KeyCache(database)
    with pytest.raises(Unavailable):
        cache.principal(made.plaintext)
    cache.refresh()
    cache._database = Database("postgresql+psycopg://x@127.0.0.1:1/x", connect_timeout=1)
    with pytest.raises(Unavailable):
        cache.refresh()
    assert cache.principal(made.plaintext).role == "operator"
    with pytest.raises(Unauthenticated):
        cache.principal("sl_other")


def _count(database: Database) -> int:
    with database.reading() as session:
        return len(session.scalars(select(ApiKey)).all())
