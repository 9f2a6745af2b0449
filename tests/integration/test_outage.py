"""Predictions go on without the database and without Redis: a real gateway, real processes."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr

from app import migrations
from app.core.access import Principal
from app.core.database import Database
from app.core.settings import BackboneSettings, DatabaseSettings, ServerSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import Project
from app.keys import service as keys
from app.registry import service as registry
from models.artifact import Artifact
from tests.integration import services, tiny
from tests.integration.services import wait_for
from tests.integration.stoppable import Postgres, Sqlite

PNG = {"content-type": "image/png"}
# Far below every timeout of the database: who waits for it waits longer.
AT_ONCE = 2.0
# More than a server has threads for requests that wait.
CROWD = 120


@pytest.fixture(params=["sqlite", "postgresql"])
def stoppable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Postgres | Sqlite]:
    found = Sqlite(tmp_path / "shotline.db") if request.param == "sqlite" else Postgres()
    yield found
    found.remove()


@pytest.fixture
def settings(
    stoppable: Postgres | Sqlite, tmp_path: Path, backbone_settings: BackboneSettings
) -> Settings:
    return Settings(
        server=ServerSettings(home=tmp_path / "home"),
        database=DatabaseSettings(url=SecretStr(stoppable.url)),
        backbone=backbone_settings,
    )


def prepare(settings: Settings, artifact: Artifact) -> tuple[str, str]:
    """Make a key and a project with a version in production; return the key and the address."""
    database = Database.of(settings)
    migrations.upgrade(database)
    with database.unit_of_work() as session:
        key = keys.create_first_key(session)
        assert key is not None
        project = Project(name="line 3", name_key="line 3", view={}, keep_images="all")
        session.add(project)
        session.flush()
        storage = LocalStorage(settings.blob_folder)
        version = tiny.add_artifact(session, storage, project.id, artifact)
        box = Principal(None, "the box", "admin")
        registry.promote(session, box, project.id, "production", version.number)
    database.close()
    return key, f"/v1/projects/{project.id}"


def test_predictions_go_on(
    stoppable: Postgres | Sqlite, settings: Settings, tmp_path: Path, artifacts: list[Artifact]
) -> None:
    key, project = prepare(settings, artifacts[0])
    folder = Path(tempfile.mkdtemp(prefix="shotline-r-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        redis = ExitStack()
        stack.callback(redis.close)
        redis_url = redis.enter_context(services.redis_server(folder))
        environment = services.environment_of(settings, redis_url)
        address = stack.enter_context(services.gateway(environment, tmp_path / "gateway.log"))
        client = stack.enter_context(
            httpx2.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        )
        asked: list[str] = []

        def predict() -> dict[str, Any]:
            number = len(asked)
            started = time.monotonic()
            response = client.post(
                f"{project}/predict",
                content=tiny.photograph(number % 3, number),
                headers=PNG | {"Image-Id": str(number), "Idempotency-Key": str(number)},
            )
            assert response.status_code == 200, response.text
            assert time.monotonic() - started < AT_ONCE
            answer: dict[str, Any] = response.json()
            asked.append(answer["prediction_id"])
            return answer

        def part(name: str) -> str:
            found: str = client.get("/readyz").json()["parts"][name]
            return found

        predict()  # the first one of all
        with stoppable.stopped():
            redis.close()
            wait_for(lambda: predict() and part("queue") != "ok", "readiness telling the truth")
            if isinstance(stoppable, Postgres):
                wait_for(lambda: predict() and part("database") != "ok", "the same of the database")
                ready = client.get("/readyz")
                assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
                refused = client.get(project)
                assert refused.json()["type"] == "urn:shotline:problem:unavailable"
            for _ in range(20):
                predict()
            again = client.post(
                f"{project}/predict",
                content=tiny.photograph(0, 0),
                headers=PNG | {"Image-Id": "0", "Idempotency-Key": "0"},
            )
            assert again.json()["prediction_id"] == asked[0]
            stored = client.get(f"/v1/predictions/{asked[-1]}", timeout=AT_ONCE * 5)
            assert stored.status_code in (200, 503)

        redis.enter_context(services.redis_server(folder))
        wait_for(lambda: client.get("/readyz").json()["status"] == "ready", "recovery unaided")
        wait_for(lambda: len(records(client, project)) == len(asked), "every record")
        assert records(client, project) == asked
        assert "shotline_prediction_records_lost_total 0.0" in client.get("/metrics").text


def test_predictions_do_not_queue_behind_requests_that_wait_for_the_database(
    stoppable: Postgres | Sqlite, settings: Settings, tmp_path: Path, artifacts: list[Artifact]
) -> None:
    key, project = prepare(settings, artifacts[0])
    environment = services.environment_of(settings, f"redis+socket://{tmp_path / 'none.sock'}")
    with ExitStack() as stack:
        address = stack.enter_context(
            services.gateway(environment, tmp_path / "gateway.log", status="degraded")
        )
        client = stack.enter_context(
            httpx2.Client(
                base_url=address,
                headers={"Authorization": f"Bearer {key}"},
                timeout=60,
                limits=httpx2.Limits(max_connections=200),
            )
        )
        threads = stack.enter_context(ThreadPoolExecutor(CROWD))

        def change() -> int:
            return client.patch(project, json={"keep_images": "all"}).status_code

        def predict(number: int) -> float:
            started = time.monotonic()
            response = client.post(
                f"{project}/predict",
                files={"image": ("a.png", tiny.photograph(number % 3, number), "image/png")},
                headers={"Idempotency-Key": str(number)},
            )
            assert response.status_code == 200, response.text
            return time.monotonic() - started

        predict(0)
        with stoppable.hung():
            waiting = [threads.submit(change) for _ in range(CROWD)]
            time.sleep(1)
            assert not any(future.done() for future in waiting)
            assert max(predict(number) for number in range(1, 20)) < AT_ONCE
        assert {future.result() for future in waiting} <= {200, 503}
        wait_for(lambda: len(records(client, project)) == 20, "every record")


def records(client: httpx2.Client, project: str) -> list[str]:
    response = client.get(f"{project}/predictions", params={"limit": 500})
    return [entry["prediction_id"] for entry in response.json()["items"]]
