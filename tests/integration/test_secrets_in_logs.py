"""No key, password or idempotency key in what gateway and worker write, at their most talkative."""

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.core.tables import Project
from app.keys.service import create_key
from tests.integration import services, tiny

WRONG = "sl_wrongkey_" + "Qx7" * 14
PASTED = "hunter2-was-pasted-here"
ONCE = "idempotency-8f1c2e5b7d"
IN_ADDRESS = "secret-in-the-query-5a5a"
PASSWORD = "redis-password-77ab"


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Its file is searched, too."""
    kind: str = request.param
    return kind


@pytest.fixture
def talkative(settings: Settings, database: Database, tmp_path: Path) -> Iterator[dict[str, str]]:
    with services.redis_server(tmp_path) as queue:
        # The private Redis asks for none, and takes any.
        yield services.environment_of(settings, queue) | {
            "SHOTLINE_LOG_LEVEL": "debug",
            "SHOTLINE_PREDICTION_REFRESH_SECONDS": "0.1",
        }


def test_no_secret_is_written(
    talkative: dict[str, str], settings: Settings, database: Database, tmp_path: Path
) -> None:
    with database.unit_of_work() as session:
        admin = create_key(session, name="admin", role="admin").plaintext
    logs = [tmp_path / "gateway.log", tmp_path / "worker.log"]
    with (
        services.gateway(talkative, logs[0]) as address,
        services.worker(talkative, logs[1]),
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        made = _use(client, admin)
    # A password in an address that cannot be reached: connecting fails, and says so.
    away = talkative | {"SHOTLINE_QUEUE_URL": f"redis://:{PASSWORD}@127.0.0.1:1/0"}
    with (
        services.gateway(away, logs[0], status="degraded") as address,
        httpx2.Client(base_url=address, timeout=60) as client,
    ):
        client.get("/readyz").raise_for_status()
    written = b"".join(path.read_bytes() for path in logs)
    assert b"debug" in written
    assert b"tuning" in written
    for secret in (admin, made, WRONG, PASTED, ONCE, IN_ADDRESS, PASSWORD):
        assert secret.encode() not in written, secret
    for key in (admin, made, WRONG):
        assert key[11:].encode() not in written, "the secret half of a key"
    _search_database(settings.home, database, (admin, made, WRONG, PASTED, PASSWORD))


def _use(client: httpx2.Client, admin: str) -> str:
    """Have every kind of secret come in, and a tuning go through; return a key made meanwhile."""
    said = {"Authorization": f"Bearer {admin}"}
    for wrong in (WRONG, PASTED, f"Basic {PASTED}"):
        client.get("/v1/projects", headers={"Authorization": f"Bearer {wrong}"})
        client.get("/v1/projects", headers={"Authorization": wrong})
    made: str = client.post(
        "/v1/keys", headers=said, json={"name": "line", "role": "operator"}
    ).json()["key"]
    client.get("/v1/projects", headers=said, params={"token": IN_ADDRESS, "limit": IN_ADDRESS})
    project = client.post("/v1/projects", headers=said, json={"name": "secrets"}).json()["id"]
    for label in ("good", "scratch"):
        files = [
            ("files", (f"{n}.png", tiny.photograph(int(label == "good"), n), "image/png"))
            for n in range(4)
        ]
        created = client.post(f"/v1/projects/{project}/classes", headers=said, json={"name": label})
        assert created.status_code == 201, created.text
        sent = client.post(
            f"/v1/projects/{project}/images", headers=said, files=files, data={"label": label}
        )
        assert sent.status_code == 200, sent.text
    tuning = client.post(
        f"/v1/projects/{project}/tunings", headers=said, json={"recipe": tiny.RECIPE}
    ).json()["id"]
    address = f"/v1/tunings/{tuning}"
    services.wait_for(
        lambda: client.get(address, headers=said).json()["state"] == "succeeded", "the tuning"
    )
    client.put(
        f"/v1/projects/{project}/aliases/production", headers=said, json={"version": 1}
    ).raise_for_status()
    line = {"Authorization": f"Bearer {made}", "Idempotency-Key": ONCE, "Content-Type": "image/png"}
    for image in (tiny.photograph(0, 50), tiny.photograph(0, 51), b"no image"):
        client.post(f"/v1/projects/{project}/predict", headers=line, content=image)
    client.post(f"/v1/projects/{project}/predict", headers=line, content=tiny.photograph(0, 50))
    return made


def _search_database(home: Path, database: Database, secrets: tuple[str, ...]) -> None:
    with database.reading() as session:
        assert session.query(Project).count() == 1
        dump = "\n".join(
            json.dumps([str(value) for value in row])
            for table in session.connection().exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            )
            for row in session.connection().exec_driver_sql(f'SELECT * FROM "{table[0]}"')
        )
    assert "secrets" in dump
    for path in home.rglob("*.db"):  # the idempotency keys' own file
        dump += "\n".join(sqlite3.connect(path).iterdump())
    for secret in secrets:
        assert secret not in dump
    for folder, _, names in os.walk(home):
        for name in names:
            content = (Path(folder) / name).read_bytes()
            assert not [it for it in secrets if it.encode() in content], name
