"""`shotline predict --project`: a folder of photographs through a gateway under uvicorn."""

import csv
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from app.cli import api as command_line
from app.cli import asking
from app.cli.main import app as shotline
from app.core.database import Database
from app.core.settings import LimitSettings, PredictionSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import KeyRole
from app.keys import service as keys
from app.predictions.engines.encoder import ImageEncoder
from models.artifact import Artifact
from tests.integration import tiny
from tests.integration.listening import listening
from tests.integration.services import wait_for
from tests.integration.serving import Served, make_project, serve
from tests.integration.test_prediction_path import Gate

Run = Callable[..., Result]


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """One is enough: what is tested is the command line."""
    kind: str = request.param
    return kind


@pytest.fixture
def limits() -> LimitSettings:
    return LimitSettings(file_bytes=60_000)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A gateway that takes two images at a time, half of what the command sends."""
    prediction = PredictionSettings(max_batch=2, max_queue=2)
    return settings.model_copy(update={"prediction": prediction})


@pytest.fixture
def gate(encoder: ImageEncoder) -> Gate:
    return Gate(encoder)


@pytest.fixture
def app_encoder(gate: Gate) -> ImageEncoder:
    return gate


@pytest.fixture
def url(app: FastAPI, gate: Gate) -> Iterator[str]:
    with listening(app) as (host, port):
        yield f"http://{host}:{port}"
        gate.open.set()


@pytest.fixture
def make_key(app: FastAPI, database: Database, url: str) -> Callable[..., str]:
    def make(role: KeyRole, project: UUID | None = None) -> str:
        with database.unit_of_work() as session:
            made = keys.create_key(session, name=role, role=role, project_id=project)
        app.state.gateway.keys.refresh()
        return made.plaintext

    return make


@pytest.fixture
def client(make_key: Callable[..., str], url: str) -> Iterator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {make_key('admin')}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture
def served(
    client: Any, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    return serve(client, database, storage, artifacts[0])


@pytest.fixture
def run(url: str, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `shotline predict` with an operator's key."""
    monkeypatch.setattr(command_line, "_PAUSE", 0.05)
    monkeypatch.setattr(command_line, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setenv("SHOTLINE_KEY", make_key("operator"))

    def predict(*args: object) -> Result:
        with capture_logs():  # the gateway is in this process, and would write into the output
            return CliRunner().invoke(shotline, ["predict", "--url", url, *map(str, args)])

    return predict


@pytest.fixture
def lot(tmp_path: Path) -> Path:
    """Twelve photographs in two folders, litter, and two files that are none."""
    folder = tmp_path / "lot"
    for number in range(12):
        path = folder / f"shift {number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny.photograph(number % 3, number))
    (folder / "shift 0" / "Thumbs.db").write_bytes(b"x")
    return folder


def said(result: Result) -> str:
    return " ".join(result.stderr.split())


def test_a_folder_is_decided_on_whatever_the_gateway_has_to_do(
    run: Run, client: httpx2.Client, served: Served, lot: Path
) -> None:
    name = client.get(f"/v1/projects/{served.project}").json()["name"]
    result = run(lot, "--project", name.upper(), "--json", "--top-k", 1)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    paths = sorted(lot.rglob("*.png"))
    assert [row["image"] for row in rows] == list(map(str, paths))
    for row, path in zip(rows, paths, strict=True):
        alone = client.post(
            served.predict, content=path.read_bytes(), headers={"content-type": "image/png"}
        ).json()
        assert row["label"] == alone["label"]
        assert row["probability"] == alone["probability"]
        assert len(row["probabilities"]) == 1
    everything = f"/v1/projects/{served.project}/predictions"
    wait_for(lambda: len(client.get(everything).json()["items"]) == 24, "one record for each")


def test_more_than_the_gateway_takes_is_sent_again(
    run: Run, client: httpx2.Client, served: Served, lot: Path, gate: Gate
) -> None:
    gate.open.clear()

    def open_once_some_were_refused() -> None:
        wait_for(lambda: "shed_total 0.0" not in client.get("/metrics").text, "a refusal")
        gate.open.set()

    helper = threading.Thread(target=open_once_some_were_refused)
    helper.start()
    result = run(lot, "--project", served.project, "--json")
    helper.join()
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)) == 12


def test_bad_photographs_are_named_and_the_others_decided(
    run: Run, served: Served, lot: Path, tmp_path: Path
) -> None:
    (lot / "shift 0" / "13.png").write_bytes(b"not a photograph")
    (lot / "shift 0" / "14.png").write_bytes(b"x" * 60_001)
    table = tmp_path / "decisions.csv"
    result = run(lot, lot / "none.png", "--project", served.project, "--csv", table)
    assert result.exit_code == 2
    for part in ("13.png: The file is not an image", "60001 bytes", "none.png cannot be read"):
        assert part in said(result)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert list(rows[0]) == ["image", "decision", "reason", "label", "probability", "problem"]
    assert len(rows) == 15
    assert [row["image"] for row in rows if row["problem"]] == [
        str(lot / name) for name in ("shift 0/13.png", "shift 0/14.png", "none.png")
    ]


def test_whom_the_gateway_does_not_answer(
    run: Run,
    client: Any,
    served: Served,
    lot: Path,
    make_key: Callable[..., str],
) -> None:
    fresh = make_project(client)
    nothing_promoted = run(lot, "--project", fresh)
    assert nothing_promoted.exit_code == 2
    assert "production" in said(nothing_promoted)
    assert "promote" in said(nothing_promoted)
    assert nothing_promoted.stderr.count("Error:") == 1

    unknown = run(lot, "--project", "none such")
    assert unknown.exit_code == 2
    assert "no project 'none such'" in said(unknown)
    assert client.get("/v1/projects", params={"name": "none such"}).json()["items"] == []

    for key, part in (("sl_wrong", "API key"), (make_key("viewer"), "operator")):
        refused = run(lot, "--project", served.project, "--key", key)
        assert refused.exit_code == 2
        assert part in said(refused)
        assert refused.stdout == ""


def test_what_was_decided_before_the_end_is_not_lost(
    run: Run,
    served: Served,
    lot: Path,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    encode, left = gate.encode, iter(range(5))

    def fail_after_some(pixels: Any) -> Any:
        if next(left, None) is None:
            raise RuntimeError("CUDA error")
        return encode(pixels)

    monkeypatch.setattr(gate, "encode", fail_after_some)
    monkeypatch.setattr(command_line, "_PATIENCE", 0.0)
    monkeypatch.setattr(asking, "_REQUESTS", 2)  # none is refused for want of room
    table = tmp_path / "decisions.csv"
    result = run(lot, "--project", served.project, "--json", "--csv", table)
    assert result.exit_code == 2
    assert "Error:" in result.stderr
    rows = json.loads(result.stdout)
    assert 5 <= len(rows) < 12
    assert len(table.read_text().splitlines()) == 1 + len(rows)
