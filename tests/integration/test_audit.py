"""The record of changes: its chain, what breaks it, who reads it."""

import hashlib
import hmac
import json
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from pydantic import SecretStr
from sqlalchemy import delete, exc, select, text, update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

from app import migrations
from app.audit import service
from app.audit.head_log import HeadLog
from app.audit.verify import Verdict, verify
from app.cli.main import app as shotline
from app.core import audit
from app.core.database import Database
from app.core.errors import Unavailable
from app.core.ids import new_id
from app.core.jobs import TUNINGS, Failure
from app.core.queue import InMemoryQueue
from app.core.reaper import reap
from app.core.seal import Head, head_file, load_key, make_key, read_head
from app.core.settings import AuditSettings, DatabaseSettings, Settings, TuningSettings
from app.core.tables import AuditEntry, AuditHead, Project
from app.projects.repository import note_change
from tests.integration import test_tunings
from tests.integration.conftest import MakeClient
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for


def write(database: Database, count: int = 1, project: UUID | None = None) -> None:
    """Record `count` changes, each in a transaction of its own."""
    for number in range(count):
        with database.unit_of_work() as session:
            audit.record(
                session, "test.write", str(number), project=project, after={"number": number}
            )


def entries(database: Database) -> list[AuditEntry]:
    with database.reading() as session:
        return list(session.scalars(select(AuditEntry).order_by(AuditEntry.sequence)))


def tamper(database: Database, change: Callable[[Session], object]) -> None:
    """Do what someone with the database's own rights can do: triggers hold nobody off for ever."""
    with database.engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            names = connection.execute(text("SELECT name FROM sqlite_master WHERE type='trigger'"))
            for name in names.scalars().all():
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("ALTER TABLE audit_entries DISABLE TRIGGER ALL"))
        session = Session(connection)
        change(session)
        session.flush()


def problems(database: Database, given: Head | None = None) -> str:
    return "\n".join(verify(database, given=given).problems)


# --- the chain


def test_entries_are_sealed_as_the_documents_say(database: Database, settings: Settings) -> None:
    write(database, 3)
    secret = bytes.fromhex(settings.audit_key_file.read_text())
    previous = "0" * 64
    for number, row in enumerate(entries(database), start=1):
        sealed = {
            "sequence": number,
            "at": row.at.isoformat(timespec="microseconds"),
            "actor_id": None,
            "actor": "Shotline itself",
            "action": "test.write",
            "kind": "test",
            "object_id": str(number - 1),
            "project_id": None,
            "before": None,
            "after": f'{{"number":{number - 1}}}',
            "request_id": None,
            "previous": previous,
        }
        message = json.dumps(sealed, sort_keys=True, separators=(",", ":"))
        assert row.mac == hmac.new(secret, message.encode(), hashlib.sha256).hexdigest()
        previous = row.mac
    with database.reading() as session:
        assert service.head(session) == Head(3, previous)
    assert read_head(head_file(settings.audit_key_file)) == Head(3, previous)
    assert verify(database).problems == []


def test_the_time_is_the_database_s(database: Database) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    write(database, 3)
    times = [row.at for row in entries(database)]
    assert times == sorted(times)
    assert before < times[0] < datetime.now(UTC) + timedelta(minutes=1)


def test_what_is_rolled_back_takes_no_number(database: Database) -> None:
    write(database)

    def fails() -> None:
        with database.unit_of_work() as session:
            audit.record(session, "test.write", "lost")
            raise RuntimeError("after all")

    with pytest.raises(RuntimeError, match="after all"):
        fails()
    twice = [Project(name=name, name_key="one", view={}) for name in "ab"]

    def is_refused() -> None:
        with database.unit_of_work() as session:
            audit.record(session, "test.write", "refused")
            session.add_all(twice)

    with pytest.raises(exc.IntegrityError):
        is_refused()
    write(database)
    assert [row.sequence for row in entries(database)] == [1, 2]
    assert verify(database).problems == []


def test_one_transaction_may_have_many_entries(database: Database) -> None:
    with database.unit_of_work() as session:
        for number in range(50):
            audit.record(session, "test.write", str(number), before={"傷": 1e-7, "x": "\0\ud800"})
    assert [row.object_id for row in entries(database)] == [str(number) for number in range(50)]
    assert verify(database).problems == []


def test_many_writers_make_one_chain(database: Database, settings: Settings) -> None:
    """Also those that hold the row of what is served, before or after they record."""
    with database.unit_of_work() as session:
        projects = [Project(name=f"{n}", name_key=f"{n}", view={}) for n in range(4)]
        session.add_all(projects)
    others = [Database.of(settings) for _ in range(3)]
    failed: list[Exception] = []

    def work(mine: Database, number: int) -> None:
        for turn in range(8):
            try:
                with mine.unit_of_work() as session:
                    if (number + turn) % 2:
                        note_change(session, projects[number % 4].id)
                    audit.record(session, "test.write", f"{number}-{turn}")
                    session.flush()
                    if not (number + turn) % 2:
                        note_change(session, projects[(number + 1) % 4].id)
                    audit.record(session, "test.write", f"{number}-{turn}")
            except Exception as error:  # noqa: BLE001 - shown below
                failed.append(error)

    threads = [
        threading.Thread(target=work, args=(mine, number))
        for number, mine in enumerate([database, *others, database, *others])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        other.close()
    assert failed == []
    found = entries(database)
    assert [row.sequence for row in found] == list(range(1, 8 * 8 * 2 + 1))
    assert verify(database).problems == []
    assert read_head(head_file(settings.audit_key_file)) == Head(found[-1].sequence, found[-1].mac)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET actor = 'someone else' WHERE sequence = 1",
        "DELETE FROM audit_entries WHERE sequence = 2",
        "DELETE FROM audit_entries",
    ],
)
def test_the_database_refuses_to_change_an_entry(database: Database, statement: str) -> None:
    write(database, 2)
    with pytest.raises(exc.DBAPIError, match="never changed"), database.engine.begin() as it:
        it.execute(text(statement))
    assert len(entries(database)) == 2


def test_the_database_refuses_to_replace_or_empty(database: Database, database_kind: str) -> None:
    write(database, 2)
    statement = "TRUNCATE audit_entries"
    if database_kind == "sqlite":
        statement = "INSERT OR REPLACE INTO audit_entries SELECT * FROM audit_entries"
    with pytest.raises(exc.DBAPIError, match="never changed"), database.engine.begin() as it:
        it.execute(text(statement))
    assert len(entries(database)) == 2


# --- what breaks it


OTHER: dict[str, Any] = {
    "at": datetime(2020, 1, 1, tzinfo=UTC),
    "actor_id": UUID(int=7),
    "actor": "someone else",
    "action": "test.read",
    "kind": "other",
    "object_id": "99",
    "project_id": UUID(int=7),
    "before": "{}",
    "after": None,
    "request_id": "another",
    "mac": "f" * 64,
}


def test_every_column_is_tried() -> None:
    assert {"sequence", *OTHER} == set(AuditEntry.__table__.columns.keys())


@pytest.mark.parametrize("column", OTHER)
def test_an_edited_column_is_found(database: Database, column: str) -> None:
    write(database, 5)
    changed = update(AuditEntry).where(AuditEntry.sequence == 3).values({column: OTHER[column]})
    tamper(database, lambda session: session.execute(changed))
    assert "Entry 3 was changed" in problems(database)


def test_an_edited_number_is_found(database: Database) -> None:
    write(database, 5)
    renumbered = update(AuditEntry).where(AuditEntry.sequence == 5).values(sequence=9)
    tamper(database, lambda session: session.execute(renumbered))
    assert "Entries 5 to 8 are missing" in problems(database)


@pytest.mark.parametrize(
    ("gone", "found"),
    [
        ([1], "Entry 1 is missing"),
        ([3], "Entry 3 is missing, so that entry 4"),
        ([2, 3], "Entries 2 to 3 are missing"),
    ],
)
def test_a_removed_entry_is_found(database: Database, gone: list[int], found: str) -> None:
    write(database, 5)
    removed = delete(AuditEntry).where(AuditEntry.sequence.in_(gone))
    tamper(database, lambda session: session.execute(removed))
    assert found in problems(database)


def test_a_removed_entry_is_found_where_the_others_close_ranks(database: Database) -> None:
    write(database, 5)

    def close_ranks(session: Session) -> None:
        session.execute(delete(AuditEntry).where(AuditEntry.sequence == 3))
        for number in (4, 5):
            moved = update(AuditEntry).where(AuditEntry.sequence == number)
            session.execute(moved.values(sequence=number - 1))

    tamper(database, close_ranks)
    assert "Entry 3 was changed" in problems(database)


def test_swapped_entries_are_found(database: Database) -> None:
    write(database, 5)

    def swap(session: Session) -> None:
        for old, new in ((2, 100), (4, 2), (100, 4)):
            moved = update(AuditEntry).where(AuditEntry.sequence == old)
            session.execute(moved.values(sequence=new))

    tamper(database, swap)
    found = problems(database)
    assert "Entry 2 was changed" in found
    assert "Entry 4 was changed" in found


def cut(database: Database, count: int) -> None:
    """Cut the tail off, and mend the database's own head, so that nothing in it is amiss."""

    def change(session: Session) -> None:
        session.execute(delete(AuditEntry).where(AuditEntry.sequence > count))
        last = session.get(AuditEntry, count)
        values = {"sequence": count, "mac": "0" * 64 if last is None else last.mac}
        session.execute(update(AuditHead).values(values))

    tamper(database, change)


@pytest.mark.parametrize("left", [0, 3])
def test_a_cut_tail_is_found_by_what_is_kept_beside_the_key(database: Database, left: int) -> None:
    write(database, 5)
    cut(database, left)
    assert f"ends with entry {left}, and the head kept in" in problems(database)


def test_a_cut_tail_is_found_by_a_head_noted_elsewhere(
    database: Database, settings: Settings
) -> None:
    write(database, 5)
    with database.reading() as session:
        noted = service.head(session)
    cut(database, 3)
    head_file(settings.audit_key_file).unlink()
    assert problems(database) == ""
    assert "ends with entry 3, and the head that was given is 5" in problems(database, noted)


def test_a_tail_cut_without_mending_the_head_is_found(
    database: Database, settings: Settings
) -> None:
    write(database, 5)
    removed = delete(AuditEntry).where(AuditEntry.sequence > 3)
    tamper(database, lambda session: session.execute(removed))
    head_file(settings.audit_key_file).unlink()
    assert "the database's own head is 5" in problems(database)


def test_a_tail_that_grew_again_is_found(database: Database, settings: Settings) -> None:
    """What was kept is not written over while it is not in the chain."""
    write(database, 5)
    cut(database, 3)
    with structlog.testing.capture_logs() as logs:
        write(database, 10)
    assert [line["event"] for line in logs] == ["audit_head_conflict"] * 10
    kept = read_head(head_file(settings.audit_key_file))
    assert kept is not None
    assert kept.sequence == 5
    assert "Entry 5 is not the one that the head kept in" in problems(database)


def test_a_restored_database_can_be_accepted(database: Database, settings: Settings) -> None:
    write(database, 5)
    kept = read_head(head_file(settings.audit_key_file))
    cut(database, 3)
    head = service.accept_head(database, "restored from the backup of Monday")
    assert head.sequence == 4
    assert problems(database) == ""
    last = entries(database)[-1]
    assert last.action == "audit.accept"
    assert last.before is not None
    assert last.after is not None
    assert json.loads(last.before) == {"kept": str(kept)}
    assert json.loads(last.after)["reason"] == "restored from the backup of Monday"
    write(database)
    assert problems(database) == ""


def test_entries_behind_the_head_are_found(database: Database) -> None:
    write(database, 2)
    row = entries(database)[-1]
    copy = {name: getattr(row, name) for name in ("sequence", *OTHER)}
    forged = AuditEntry(**copy | {"sequence": 3})
    tamper(database, lambda session: session.add(forged))
    assert "Entry 3 was changed" in problems(database)
    assert "stand behind the database's own head" in problems(database)


def test_a_forged_head_is_found(database: Database) -> None:
    write(database, 2)
    forged = update(AuditHead).values(mac="a" * 64)
    tamper(database, lambda session: session.execute(forged))
    assert "Entry 2 is not the one that the database's own head" in problems(database)


# --- the key


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "audit.key"
    ready, made = threading.Barrier(8), []

    def make() -> None:
        ready.wait()
        made.append(make_key(path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(made) == {load_key(path)}
    assert len(made) == 8
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["audit.key"]


def test_a_lost_key_is_never_replaced(database: Database, settings: Settings) -> None:
    write(database, 2)
    path = settings.audit_key_file
    kept = path.read_bytes()
    path.unlink()
    for action in (
        lambda: write(database),
        lambda: audit.prepare(database),
        lambda: service.check_key(database),
    ):
        with pytest.raises(Unavailable, match=r"audit\.key is missing, .* 2 entries"):
            action()
    assert not path.exists()
    assert len(entries(database)) == 2
    path.write_bytes(kept)
    write(database)
    assert verify(database).problems == []


def test_another_key_seals_nothing(database: Database, settings: Settings, tmp_path: Path) -> None:
    write(database, 2)
    elsewhere = AuditSettings(key_file=tmp_path / "other.key")
    other = Database.of(settings.model_copy(update={"audit": elsewhere}))
    make_key(tmp_path / "other.key")
    with pytest.raises(Unavailable, match="not the one that sealed"):
        write(other)
    assert len(entries(database)) == 2
    assert "None of 2 entries was sealed by the key in" in problems(other)
    other.close()


@pytest.mark.parametrize("content", ["", "short", "g" * 64, "\xff"])
def test_a_file_that_holds_no_key(database: Database, settings: Settings, content: str) -> None:
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.audit_key_file.write_text(content, encoding="latin-1")
    with pytest.raises(Unavailable, match=r"audit\.key"):
        write(database)
    assert entries(database) == []


def test_without_its_key_the_gateway_changes_nothing(
    client: TestClient, settings: Settings, database: Database
) -> None:
    settings.audit_key_file.unlink()
    response = client.post("/v1/projects", json={"name": "unseen"})
    assert_problem(response, 503, "unavailable", names="audit.key")
    ready = client.get("/readyz").json()
    assert (ready["status"], ready["parts"]["audit"]) == ("degraded", "failed")
    with database.reading() as session:
        assert session.query(Project).count() == 0


def test_a_head_that_cannot_be_kept_stops_no_change(database: Database, settings: Settings) -> None:
    write(database)
    head_file(settings.audit_key_file).unlink()
    head_file(settings.audit_key_file).mkdir()
    write(database, 2)
    assert len(entries(database)) == 3
    assert "cannot be read" in problems(database)


# --- who and what


def test_what_is_recorded_of_a_change(make_client: MakeClient, database: Database) -> None:
    engineer = make_client("engineer")
    who = UUID(engineer.get("/v1/keys/current").json()["id"])
    headers = {"X-Request-Id": "line-3.42"}
    made = engineer.post("/v1/projects", json={"name": "傷 🔍"}, headers=headers).json()
    renamed = {"name": "dents"}
    assert engineer.patch(f"/v1/projects/{made['id']}", json=renamed).status_code == 200
    *_, created, changed = entries(database)
    assert (created.action, created.kind, created.object_id) == (
        "project.create",
        "project",
        made["id"],
    )
    assert (created.actor_id, created.actor, created.request_id) == (who, "engineer", "line-3.42")
    assert created.project_id == UUID(made["id"])
    assert created.before is None
    assert created.after is not None
    assert json.loads(created.after)["name"] == "傷 🔍"
    assert changed.before == created.after
    assert changed.after is not None
    assert json.loads(changed.after)["name"] == "dents"


def test_a_deleted_project_leaves_its_entries(client: TestClient, database: Database) -> None:
    made = client.post("/v1/projects", json={"name": "gone", "classes": [{"name": "good"}]})
    project = made.json()["id"]
    assert client.delete(f"/v1/projects/{project}").status_code == 204
    listed = client.get("/v1/audit", params={"project": project}).json()["items"]
    assert [entry["action"] for entry in listed] == [
        "project.create",
        "class.add",
        "project.delete",
    ]
    assert listed[-1]["before"]["classes"] == ["good"]
    assert listed[-1]["after"] is None
    assert verify(database).problems == []


def test_no_secret_is_recorded(client: TestClient, database: Database) -> None:
    made = client.post("/v1/keys", json={"name": "camera", "role": "viewer"}).json()
    client.delete(f"/v1/keys/{made['id']}")
    client.delete(f"/v1/keys/{made['id']}")  # changes nothing
    mine = [row for row in entries(database) if row.object_id == made["id"]]
    assert [row.action for row in mine] == ["key.create", "key.revoke"]
    digest = hashlib.sha256(made["key"].encode()).hexdigest()
    shown = [f"{row.before} {row.after}" for row in entries(database)]
    assert not any(made["key"][12:] in states or digest in states for states in shown)


def test_how_a_tuning_ended_is_recorded(client: TestClient, database: Database) -> None:
    failure = Failure(problem="It broke.", fix="Mend it.")
    projects = [test_tunings.make_project(client, "good", "bad") for _ in range(3)]
    tunings = [test_tunings.start(client, project) for project in projects]
    for tuning in tunings[:2]:
        with database.unit_of_work() as session:
            lease = TUNINGS.claim(session, tuning, owner="test", seconds=30)
        assert lease is not None
        with audit.acting("the worker"), database.unit_of_work() as session:
            if tuning == tunings[0]:
                assert TUNINGS.complete(session, lease)
            else:
                assert TUNINGS.fail(session, lease, failure)
    with database.unit_of_work() as session:
        TUNINGS.claim(session, tunings[2], owner="test", seconds=-1)
    reap(database, InMemoryQueue(), TuningSettings(max_attempts=1))
    ended = [row for row in entries(database) if row.action == "tuning.end"]
    assert [row.object_id for row in ended] == [str(tuning) for tuning in tunings]
    assert [row.actor for row in ended] == ["the worker", "the worker", "Shotline itself"]
    states = [json.loads(row.after or "") for row in ended]
    assert [state["state"] for state in states] == ["succeeded", "failed", "failed"]
    assert states[1]["failure"] == failure


def test_a_migration_is_recorded(empty_database_url: str, settings: Settings) -> None:
    url = DatabaseSettings(url=SecretStr(empty_database_url))
    database = Database.of(settings.model_copy(update={"database": url}))
    for _ in range(2):  # the second time nothing is done
        migrations.upgrade(database)
    (entry,) = entries(database)
    assert (entry.action, entry.before) == ("schema.migrate", None)
    assert entry.after == f'{{"revision":"{migrations.head()}"}}'
    assert problems(database) == ""
    database.close()


# --- read


def test_listing_filters_and_pages(client: TestClient, database: Database) -> None:
    project = new_id()
    write(database, 5, project)
    write(database, 2)
    first = client.get("/v1/audit", params={"project": str(project), "limit": 3}).json()
    rest = client.get(
        "/v1/audit", params={"project": str(project), "cursor": first["next_cursor"]}
    ).json()
    numbers = [entry["after"]["number"] for entry in first["items"] + rest["items"]]
    assert numbers == [0, 1, 2, 3, 4]
    assert rest["next_cursor"] is None
    created = client.get("/v1/audit", params={"action": "key.create"}).json()["items"]
    assert [entry["action"] for entry in created] == ["key.create"]
    moment = entries(database)[-1].at
    late = client.get("/v1/audit", params={"since": moment.isoformat()}).json()["items"]
    assert late
    assert all(datetime.fromisoformat(entry["at"]) >= moment for entry in late)
    future = moment + timedelta(days=1)
    assert client.get("/v1/audit", params={"since": future.isoformat()}).json()["items"] == []


def test_an_admin_of_one_project_sees_that_alone(
    make_client: MakeClient, client: TestClient, database: Database
) -> None:
    made = [client.post("/v1/projects", json={"name": name}).json()["id"] for name in "ab"]
    mine = make_client("admin", UUID(made[0]))
    listed = mine.get("/v1/audit").json()["items"]
    assert {entry["project"] for entry in listed} == {made[0]}
    assert [entry["action"] for entry in listed] == ["project.create", "key.create"]
    assert_problem(mine.get("/v1/audit", params={"project": made[1]}), 404, "not-found")
    for role in ("viewer", "operator", "engineer"):
        assert_problem(make_client(role).get("/v1/audit"), 403, "forbidden", names="admin")


# --- the head in the log


def test_the_head_is_logged_at_start_daily_and_at_the_end(
    database: Database, settings: Settings
) -> None:
    with structlog.testing.capture_logs() as logs:
        log = HeadLog(database, every=0.0, look=0.01)
        log.start()
        wait_for(lambda: any(line.get("when") == "daily" for line in logs), "a second line", 30)
        write(database)
        log.stop()
    heads = [line for line in logs if line["event"] == "audit_head"]
    assert (heads[0]["when"], heads[0]["sequence"]) == ("start", 0)
    assert (heads[-1]["when"], heads[-1]["sequence"]) == ("stop", 1)
    assert heads[-1]["mac"] == entries(database)[0].mac
    assert load_key(settings.audit_key_file) is not None


# --- the command line


@pytest.fixture
def run(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.setenv("SHOTLINE_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("SHOTLINE_HOME", str(settings.home))
    return lambda *arguments: CliRunner().invoke(shotline, ["audit", *map(str, arguments)])


def test_the_command_verifies(run: Callable[..., Result], database: Database) -> None:
    write(database, 5)
    head = run("head")
    assert head.exit_code == 0
    whole = run("verify", "--head", head.stdout.strip())
    assert (whole.exit_code, whole.stdout.split("; ")[0]) == (0, "The record is whole")
    changed = update(AuditEntry).where(AuditEntry.sequence == 2).values(actor="x")
    tamper(database, lambda session: session.execute(changed))
    found = run("verify")
    assert found.exit_code == 1
    assert "Entry 2 was changed" in found.stdout
    assert "not whole" in found.stdout
    assert run("verify", "--head", "nonsense").exit_code == 2


def test_the_command_says_where_nothing_can_be_verified(
    run: Callable[..., Result], database: Database, settings: Settings
) -> None:
    write(database)
    settings.audit_key_file.unlink()
    result = run("verify")
    assert result.exit_code == 2
    assert "nothing can be verified" in result.stderr


def test_the_command_exports_what_verifies(
    run: Callable[..., Result], database: Database, settings: Settings, tmp_path: Path
) -> None:
    project = new_id()
    write(database, 3, project)
    target = tmp_path / "audit.jsonl"
    assert run("export", "--out", target).exit_code == 0
    assert run("export").stdout == target.read_text()
    assert run("export", "--out", target).exit_code == 2  # it is there
    secret, previous = bytes.fromhex(settings.audit_key_file.read_text()), "0" * 64
    for line in target.read_text().splitlines():
        entry = json.loads(line)
        mac = entry.pop("mac")
        entry["previous"] = previous
        for name in ("before", "after"):
            if entry[name] is not None:
                entry[name] = json.dumps(entry[name], sort_keys=True, separators=(",", ":"))
        message = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
        assert hmac.new(secret, message, hashlib.sha256).hexdigest() == mac
        previous = mac
    assert previous == entries(database)[-1].mac


def test_the_command_accepts_a_restored_database(
    run: Callable[..., Result], database: Database
) -> None:
    write(database, 5)
    cut(database, 2)
    assert run("verify").exit_code == 1
    assert run("accept-head", "restored").exit_code == 0
    assert run("verify").exit_code == 0
    assert entries(database)[-1].actor == "the command line"


def test_no_more_problems_are_listed_than_a_person_reads() -> None:
    verdict = Verdict()
    for number in range(1000):
        verdict.note(f"{number}")
    assert (verdict.count, len(verdict.problems)) == (1000, 100)
