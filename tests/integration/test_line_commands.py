"""`shotline promote`, `rollback`, `freeze` and `review`, through a gateway under uvicorn."""

import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from app.cli import api as command_line
from app.cli.main import app as shotline
from app.core.database import Database
from app.core.jobs import GATES
from app.core.settings import GateSettings, Settings
from app.core.storage import LocalStorage
from app.keys import service as keys
from models.artifact import Artifact
from tests.integration import serving, tiny
from tests.integration.listening import listening
from tests.integration.services import wait_for
from tests.integration.test_gates import RESULT, gap

Run = Callable[..., Result]


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """One is enough: what is tested is the command line."""
    kind: str = request.param
    return kind


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"gates": GateSettings(enabled=True)})


@pytest.fixture
def gateway(app: FastAPI, database: Database) -> Iterator[tuple[str, str]]:
    """Its address, and an admin's key."""
    with listening(app) as (host, port):
        with database.unit_of_work() as session:
            key = keys.create_key(session, name="me", role="admin").plaintext
        app.state.gateway.keys.refresh()
        yield f"http://{host}:{port}", key


@pytest.fixture
def run(gateway: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(command_line, "_POLL_SECONDS", 0.02)
    there = ["--url", gateway[0], "--key", gateway[1]]
    return lambda *arguments: CliRunner().invoke(shotline, [*map(str, arguments), *there])


@pytest.fixture
def asking(gateway: tuple[str, str]) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {gateway[1]}"}
    with httpx2.Client(base_url=gateway[0], headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def project(
    asking: httpx2.Client, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> UUID:
    made = asking.post("/v1/projects", json={"name": "cap", "keep_images": "all"}).json()["id"]
    serving.add_versions(database, storage, UUID(made), artifacts)
    return UUID(made)


def work_through(database: Database, *, worse: bool = False) -> threading.Thread:
    """Do what a worker does with the next run of gates, once there is one."""

    def waiting() -> UUID | None:
        with database.reading() as session:
            return GATES.oldest_queued(session)

    def work() -> None:
        wait_for(waiting, "gates that wait", 30)
        result = RESULT | ({"opponents": [gap("zero-shot", -0.4, -0.2)]} if worse else {})
        run = waiting()
        assert run is not None
        with database.unit_of_work() as session:
            lease = GATES.claim(session, run, owner="a test", seconds=60)
            assert lease is not None
            GATES.note(session, lease, result=result)
            assert GATES.complete(session, lease)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_promote_waits_for_the_gates_and_rollback_does_not(
    run: Run, project: UUID, database: Database
) -> None:
    for version in (1, 2):
        worker = work_through(database)
        done = run("promote", project, version, "--reason", "the night shift")
        worker.join()
        assert done.exit_code == 0, done.output
        assert f"Version {version} answers as production." in done.output
    worker = work_through(database, worse=True)
    refused = run("promote", project, 3)
    worker.join()
    assert refused.exit_code == 2
    assert "zero-shot: fail" in " ".join(refused.output.split())
    assert run("promote", project, 3, "--override", "the camera was moved").exit_code == 0
    back = run("rollback", project, "--reason", "false alarms")
    assert "Version 2 answers as production." in back.output


def test_freeze_and_lift(run: Run, project: UUID) -> None:
    assert run("freeze", project).exit_code == 2
    stopped = run("freeze", project, "--reason", "customer audit")
    assert "by me: customer audit" in stopped.output
    refused = run("promote", project, 1)
    assert refused.exit_code == 2
    assert "customer audit" in " ".join(refused.output.split())
    assert run("freeze", project, "--lift").exit_code == 0
    assert run("freeze", project, "--lift", "--reason", "x").exit_code == 2


def test_review_lists_what_waits(run: Run, asking: httpx2.Client, project: UUID) -> None:
    assert run("promote", project, 1, "--override", "the first one").exit_code == 0
    address = f"/v1/projects/{project}"
    png = {"content-type": "image/png"}
    made = [
        asking.post(f"{address}/predict", content=tiny.photograph(2, number), headers=png).json()
        for number in range(6)
    ]
    undecidable = [one["prediction_id"] for one in made if one["decision"] == "undecidable"]
    listed = f"{address}/predictions"
    wait_for(lambda: len(asking.get(listed).json()["items"]) == 6, "the records")
    shown = run("review", project, "--limit", 10)
    assert shown.exit_code == 0, shown.output
    assert f"{len(undecidable)} wait; 0 are gathered" in shown.output
