"""Backup and restore: one state of everything, whole or not at all, on and between databases."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import delete, inspect, select, text
from starlette.testclient import TestClient

from app import migrations
from app.core.database import Database
from app.core.errors import Conflict
from app.core.ids import new_id
from app.core.seal import make_key
from app.core.storage import LocalStorage
from app.core.sweep import sweep_orphans
from app.core.tables import PredictionRecord, Project, Serving
from app.maintenance.archive import BackupReader, BackupWriter, Manifest
from app.maintenance.backup import backup
from app.maintenance.restore import Place, restore
from app.maintenance.verify import verify
from models.artifact import Artifact
from models.errors import BadInput, Refused, ShotlineError, StorageFull
from models.progress import Progress
from tests.integration import tiny
from tests.integration.conftest import administer, at
from tests.integration.kept import blobs, contents, fill
from tests.integration.serving import promote
from tests.integration.test_projects import make

NewPlace = Callable[[str], Place]


@pytest.fixture
def new_place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NewPlace]:
    """Make an empty database of a kind and a folder for blobs beside it."""
    with ExitStack() as stack:

        def make(kind: str) -> Place:
            home = tmp_path / f"new-{new_id()}"
            home.mkdir()
            url = f"sqlite:///{home / 'shotline.db'}"
            if kind == "postgresql":
                server, name = request.getfixturevalue("postgres_url"), f"new_{new_id().hex}"
                administer(server, f'CREATE DATABASE "{name}"')
                drop = f'DROP DATABASE "{name}" WITH (FORCE)'
                stack.callback(administer, server, drop)
                url = at(server, name)
            database = Database(url)
            stack.callback(database.close)
            return Place(database, home / "blobs")

        yield make


@pytest.fixture
def filled(database: Database, storage: LocalStorage, artifacts: list[Artifact]) -> Database:
    fill(database, storage, artifacts)
    return database


def put_back(file: Path, place: Place, *, replace: bool = False) -> None:
    restore(file, place, replace=replace)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_all_comes_back_in_either_database(
    filled: Database, storage: LocalStorage, tmp_path: Path, new_place: NewPlace, kind: str
) -> None:
    file = tmp_path / "backup.tar"
    manifest = backup(filled, storage, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert manifest.left_out == {}
    assert manifest.audit_head is not None
    assert manifest.audit_head["sequence"] >= 1
    before = contents(filled)
    assert all(before.values()), "a table without a row shows nothing"
    place = new_place(kind)
    restored = restore(file, place)
    assert restored.manifest == manifest
    assert contents(place.database) == before
    assert blobs(LocalStorage(place.blobs)) == blobs(storage)
    assert verify(place.database, LocalStorage(place.blobs)).found == []
    with tarfile.open(file) as tar:  # any tar can read it
        assert len(tar.getnames()) == len(manifest.tables) + len(manifest.blobs) + 2


def test_what_is_restored_can_be_backed_up_to_the_same_rows(
    filled: Database, storage: LocalStorage, tmp_path: Path, new_place: NewPlace, database_kind: str
) -> None:
    first = backup(filled, storage, tmp_path / "1.tar")
    place = new_place("sqlite" if database_kind == "postgresql" else "postgresql")
    put_back(tmp_path / "1.tar", place)
    second = backup(place.database, LocalStorage(place.blobs), tmp_path / "2.tar")
    assert second.blobs == first.blobs
    assert {name: table.rows for name, table in second.tables.items()} == {
        name: table.rows for name, table in first.tables.items()
    }
    assert {name: table.columns for name, table in second.tables.items()} == {
        name: table.columns for name, table in first.tables.items()
    }


def test_a_backup_goes_on_while_everything_changes(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    tmp_path: Path,
    new_place: NewPlace,
    database_kind: str,
) -> None:
    """Uploads, promotions, predictions, deletions and the sweep run all the while."""
    project = UUID(make(client, keep_images="all")["id"])
    with database.unit_of_work() as session:
        for artifact in artifacts:
            tiny.add_artifact(session, storage, project, artifact)
    promote(client, project, 1)
    stop, rounds = threading.Event(), [0]

    def write() -> None:
        while not stop.is_set():
            change(client, database, storage, project, rounds[0])
            rounds[0] += 1

    def sweep() -> None:
        while not stop.is_set():
            sweep_orphans(database, storage, min_age=2.0)

    taken = []
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(write), pool.submit(sweep)]
        try:
            for number in range(3):
                file, before = tmp_path / f"{number}.tar", rounds[0]
                taken.append((file, backup(database, storage, file, orphan_age=2.0)))
                while rounds[0] == before and not running[0].done():
                    stop.wait(0.01)
        finally:
            stop.set()
    for work in running:
        work.result()
    for file, manifest in taken:
        assert manifest.left_out == {}
        place = new_place(database_kind)
        put_back(file, place)
        assert verify(place.database, LocalStorage(place.blobs)).found == []
    assert taken[0][1].rows != taken[2][1].rows
    assert verify(database, storage).found == []


def change(
    client: TestClient, database: Database, storage: LocalStorage, project: object, number: int
) -> None:
    files = [("files", (f"{number}-{i}.png", tiny.photograph(i, number))) for i in range(2)]
    response = client.post(f"/v1/projects/{project}/images", files=files, data={"label": "scratch"})
    assert response.status_code == 200, response.text
    response = client.put(
        f"/v1/projects/{project}/aliases/production", json={"version": number % 3 + 1}
    )
    assert response.status_code == 200, response.text
    response = client.post(
        f"/v1/projects/{project}/predict",
        content=tiny.photograph(2, number),
        headers={"content-type": "image/png"},
    )
    assert response.status_code == 200, response.text
    if number % 5 == 4:
        with database.unit_of_work() as session:
            session.execute(delete(PredictionRecord))


def test_what_was_swept_before_a_backup_is_left_out_and_said(
    filled: Database, storage: LocalStorage, tmp_path: Path, new_place: NewPlace
) -> None:
    lost, rotten = sorted(blobs(storage))[:2]
    assert storage.remove_old(lost, 0)
    path = storage.root / rotten[:2] / rotten[2:4] / rotten
    path.write_bytes(b"x" + path.read_bytes()[1:])
    manifest = backup(filled, storage, tmp_path / "backup.tar")
    assert manifest.left_out == {lost: "missing", rotten: "damaged"}
    place = new_place("sqlite")
    put_back(tmp_path / "backup.tar", place)
    found = verify(place.database, LocalStorage(place.blobs)).found
    assert {finding.where for finding in found} == {f"blob {lost}", f"blob {rotten}"}


def test_blobs_that_wait_are_kept_young(
    filled: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    """A sweep at any moment of a backup takes none of its blobs, though their rows are gone."""
    named = len(blobs(storage))
    swept = []

    def phases(title: str) -> Progress:
        def progress(done: int, total: int) -> None:
            if title == "Reading rows" and done == 1:
                other = Database(filled.url.render_as_string(hide_password=False))
                with other.unit_of_work() as session:
                    for project in session.scalars(select(Project)):
                        session.execute(text("DELETE FROM tunings"))
                        session.delete(project)
                other.close()
            if title == "Copying blobs":
                swept.append(sweep_orphans(filled, storage, min_age=60))

        return progress

    for blob in blobs(storage):
        path = storage.root / blob[:2] / blob[2:4] / blob
        os.utime(path, (0, 0))
    manifest = backup(filled, storage, tmp_path / "backup.tar", phases=phases)
    assert manifest.left_out == {}
    assert len(manifest.blobs) == named
    assert set(swept) == {0}


def test_nothing_is_swept_between_the_state_and_its_blobs(
    filled: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    """The state is the one that the database has once removals are held back."""

    class Late(LocalStorage):
        @contextmanager
        def holding(self) -> Iterator[None]:
            with filled.unit_of_work() as session:
                session.execute(delete(PredictionRecord))
            assert sweep_orphans(filled, storage, min_age=0) == 2
            with super().holding():
                yield

    named = len(blobs(storage))
    manifest = backup(filled, Late(storage.root), tmp_path / "backup.tar")
    assert manifest.left_out == {}
    assert len(manifest.blobs) == named - 2
    assert manifest.tables["predictions"].rows == 0


def test_an_existing_file_is_not_replaced(
    filled: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    file = tmp_path / "backup.tar"

    def phases(title: str) -> Progress:
        file.write_bytes(b"other")
        return lambda done, total: None

    with pytest.raises(BadInput, match="came to be"):
        backup(filled, storage, file, phases=phases)
    assert file.read_bytes() == b"other"
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == ["backup.tar"]
    backup(filled, storage, file, replace=True)
    with BackupReader.open(file):
        pass


def test_a_full_disk_and_a_killed_one_leave_no_half_file(
    filled: Database, storage: LocalStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / ".shotline-backup-killed").write_bytes(b"half")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.maintenance.archive.shutil.copyfileobj", full)
    with pytest.raises(StorageFull, match=r"backup\.tar could not be written"):
        backup(filled, storage, folder / "backup.tar")
    assert list(folder.iterdir()) == []


def test_an_empty_or_newer_or_broken_database_is_refused(
    filled: Database, storage: LocalStorage, tmp_path: Path, new_place: NewPlace
) -> None:
    file = tmp_path / "backup.tar"
    with pytest.raises(Conflict, match="empty"):
        backup(new_place("sqlite").database, storage, file)
    with filled.unit_of_work() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="'9999', which Shotline"):
        backup(filled, storage, file)
    assert not file.exists()


# Bad files


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small backup."""
    folder = tmp_path_factory.mktemp("good")
    database = Database(f"sqlite:///{folder / 'shotline.db'}")
    migrations.upgrade(database)
    storage = LocalStorage(folder / "blobs")
    storage.put(b"orphan")
    with database.unit_of_work() as session:
        session.add(Project(name="a", name_key="a", view={}))
    backup(database, storage, folder / "backup.tar")
    database.close()
    return (folder / "backup.tar").read_bytes()


def repacked(good: bytes, edit: Callable[[dict[str, bytes]], None]) -> bytes:
    """Change the members of a backup and pack them again, as someone with tar would."""
    with tarfile.open(fileobj=io.BytesIO(good)) as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    edit(members)
    out = io.BytesIO()
    writer = BackupWriter(out, Manifest.model_validate_json(members["manifest.json"]).created)
    for name, content in members.items():
        writer.add(name, content)
    out.write(bytes(1024))
    return out.getvalue()


def sealed(change: Callable[[str], str]) -> Callable[[dict[str, bytes]], None]:
    """Change the manifest, and its checksum with it."""

    def edit(members: dict[str, bytes]) -> None:
        content = change(members["manifest.json"].decode()).encode()
        members["manifest.json"] = content
        members["manifest.sha256"] = hashlib.sha256(content).hexdigest().encode()

    return edit


def other_rows(members: dict[str, bytes]) -> None:
    name = "tables/projects.ndjson.gz"
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


BAD = {
    "no tar": (lambda good: b"no tar" * 200, BadInput, "no tar file"),
    "empty": (lambda good: b"", BadInput, "no tar file"),
    "other rows": (lambda good: repacked(good, other_rows), Refused, "is not what the manifest"),
    "another blob": (
        lambda good: repacked(good, lambda m: m.update({f"blobs/{'a' * 64}": b"x"})),
        Refused,
        "not the one that the manifest speaks of",
    ),
    "without a table": (
        lambda good: repacked(good, lambda m: m.pop("tables/projects.ndjson.gz") and None),
        Refused,
        "not the one that the manifest speaks of",
    ),
    "climbing out": (
        lambda good: repacked(good, lambda m: m.update({"../../etc/passwd": b"x"})),
        BadInput,
        "no backup has a member '../../etc/passwd'",
    ),
    "absolute": (
        lambda good: repacked(good, lambda m: m.update({"/blobs/x": b"x"})),
        BadInput,
        "no backup has a member",
    ),
    "no manifest": (
        lambda good: repacked(good, lambda m: m.pop("manifest.sha256") and None),
        Refused,
        "its manifest is missing",
    ),
    "another manifest": (
        lambda good: repacked(
            good, lambda m: m.update({"manifest.json": m["manifest.json"] + b" "})
        ),
        Refused,
        "not what its checksum says",
    ),
    "a later format": (
        lambda good: repacked(
            good, sealed(lambda m: m.replace('"format_version":1', '"format_version":2'))
        ),
        Refused,
        "has format version 2; this Shotline reads 1",
    ),
    "a later revision": (
        lambda good: repacked(
            good, sealed(lambda m: m.replace('"revision":"', '"revision":"9', 1))
        ),
        Conflict,
        "does not know",
    ),
    "more rows": (
        lambda good: repacked(good, sealed(lambda m: m.replace('"rows":1,', '"rows":2,'))),
        Refused,
        "rows; its manifest says 2",
    ),
    "other columns": (
        lambda good: repacked(good, sealed(lambda m: m.replace('"name_key":"text",', ""))),
        Refused,
        "table classes has other columns",
    ),
    "something behind": (lambda good: good + b"x", Refused, "something follows its end"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_before_anything_changes(
    good: bytes, name: str, tmp_path: Path, new_place: NewPlace, database_kind: str
) -> None:
    make, error, sentence = BAD[name]
    file = tmp_path / "bad.tar"
    file.write_bytes(make(good))
    place = new_place(database_kind)
    with pytest.raises(error, match=sentence) as raised:
        put_back(file, place)
    assert isinstance(raised.value, ShotlineError)
    assert raised.value.fix
    with place.database.reading() as session:
        assert inspect(session.connection()).get_table_names() == []
    assert blobs(LocalStorage(place.blobs)) == set()


def test_a_link_is_refused(good: bytes, tmp_path: Path, new_place: NewPlace) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo(f"blobs/{'a' * 64}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (tmp_path / "bad.tar").write_bytes(out.getvalue())
    with pytest.raises(BadInput, match="no backup has a member"):
        put_back(tmp_path / "bad.tar", new_place("sqlite"))


def test_every_cut_and_every_flipped_byte_is_noticed(
    good: bytes, tmp_path: Path, new_place: NewPlace
) -> None:
    file, place = tmp_path / "bad.tar", new_place("sqlite")
    step = max(1, len(good) // 150)
    for end in range(0, len(good), step):
        file.write_bytes(good[:end])
        with pytest.raises((Refused, BadInput)):
            put_back(file, place)
    for position in range(7, len(good), step):
        changed = bytearray(good)
        changed[position] ^= 0x20
        file.write_bytes(changed)
        with pytest.raises((Refused, BadInput)):
            put_back(file, place)
    file.write_bytes(good)
    put_back(file, place)


# Where to


def test_a_place_that_holds_something_is_refused(
    filled: Database, storage: LocalStorage, tmp_path: Path, new_place: NewPlace, database_kind: str
) -> None:
    file = tmp_path / "backup.tar"
    backup(filled, storage, file)
    before = contents(filled)
    with pytest.raises(Conflict, match="2 rows of projects") as raised:
        put_back(file, Place(filled, storage.root))
    assert "--replace" in raised.value.fix
    assert contents(filled) == before
    place = new_place(database_kind)
    LocalStorage(place.blobs).put(b"something else")
    with pytest.raises(Conflict, match="1 blobs in"):
        put_back(file, place)


def test_an_empty_database_that_was_migrated_already_is_taken(
    filled: Database, storage: LocalStorage, tmp_path: Path, new_place: NewPlace, database_kind: str
) -> None:
    backup(filled, storage, tmp_path / "backup.tar")
    place = new_place(database_kind)
    migrations.upgrade(place.database)
    put_back(tmp_path / "backup.tar", place)
    assert contents(place.database) == contents(filled)


def test_replace_moves_aside_and_deletes_nothing(
    filled: Database,
    storage: LocalStorage,
    tmp_path: Path,
    new_place: NewPlace,
    database_kind: str,
    artifacts: list[Artifact],
) -> None:
    file = tmp_path / "backup.tar"
    backup(filled, storage, file)
    place = new_place(database_kind)
    migrations.upgrade(place.database)
    with place.database.unit_of_work() as session:
        session.add(Project(name="old", name_key="old", view={}))
        session.get_one(Serving, 1).revision = 77
    old = contents(place.database)
    LocalStorage(place.blobs).put(b"old blob")
    done = restore(file, place, replace=True)
    assert contents(place.database) == contents(filled)
    assert blobs(LocalStorage(place.blobs)) == blobs(storage)
    assert verify(place.database, LocalStorage(place.blobs)).found == []
    (folder,) = (Path(aside) for aside in done.aside if "blobs.replaced" in aside)
    assert blobs(LocalStorage(folder)) == {hashlib.sha256(b"old blob").hexdigest()}
    if database_kind == "sqlite":
        (path,) = (aside for aside in done.aside if "shotline.db.replaced" in aside)
        kept = Database(f"sqlite:///{path}")
        assert contents(kept) == old
        kept.close()
        return
    (schema,) = (aside.split()[2] for aside in done.aside if "schema" in aside)
    with place.database.reading() as session:
        names = session.scalars(text(f'SELECT name FROM "{schema}".projects')).all()
        assert names == ["old"]


KILLED = """
import os, signal, sys
from pathlib import Path
from uuid import UUID
from app.core.database import Database
from app.maintenance.restore import Place, restore

url, folder, file, title, step, replace = sys.argv[1:]

def phases(name):
    def progress(done, total):
        if name == title and done == int(step):
            os.kill(os.getpid(), signal.SIGKILL)
    return progress

restore(Path(file), Place(Database(url), Path(folder)), replace=bool(replace), phases=phases)
"""


@pytest.mark.parametrize("replace", [False, True])
def test_a_restore_that_is_killed_can_be_run_again(
    filled: Database,
    storage: LocalStorage,
    tmp_path: Path,
    new_place: NewPlace,
    database_kind: str,
    *,
    replace: bool,
) -> None:
    file = tmp_path / "backup.tar"
    backup(filled, storage, file)
    place = new_place(database_kind)
    migrations.upgrade(place.database)
    if replace:
        with place.database.unit_of_work() as session:
            session.add(Project(name="old", name_key="old", view={}))
    before = contents(place.database)
    url = place.database.url.render_as_string(hide_password=False)
    for title, step in (("Checking the backup", 2), ("Restoring blobs", 3), ("Restoring rows", 6)):
        place.database.close()
        arguments = [url, str(place.blobs), str(file), title, str(step), "yes" if replace else ""]
        done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
        assert done.returncode == -signal.SIGKILL
        assert contents(place.database) == before
        assert not replace or blobs(LocalStorage(place.blobs)) == set()
    put_back(file, place, replace=replace)
    assert contents(place.database) == contents(filled)
    assert verify(place.database, LocalStorage(place.blobs)).found == []


def test_a_damaged_blob_that_a_killed_restore_left_is_mended(
    filled: Database, storage: LocalStorage, tmp_path: Path, new_place: NewPlace
) -> None:
    backup(filled, storage, tmp_path / "backup.tar")
    place = new_place("sqlite")
    shutil.copytree(storage.root, place.blobs)
    rotten = min(blobs(storage))
    (place.blobs / rotten[:2] / rotten[2:4] / rotten).write_bytes(b"")
    put_back(tmp_path / "backup.tar", place)
    assert verify(place.database, LocalStorage(place.blobs)).found == []


def test_the_key_of_the_record_of_changes_is_asked_for(
    filled: Database, storage: LocalStorage, tmp_path: Path, new_place: NewPlace
) -> None:
    """It is not in the backup: whoever has both could forge entries."""
    file = tmp_path / "backup.tar"
    manifest = backup(filled, storage, file)
    key = tmp_path / "other.key"
    done = restore(file, new_place("sqlite"), audit_key_file=key)
    assert done.audit_key is not None
    assert "is not there" in done.audit_key
    made = make_key(key)
    done = restore(file, new_place("sqlite"), audit_key_file=key)
    assert manifest.audit_head is not None
    assert (done.audit_key is None) == (manifest.audit_head["key_id"] == made.id)
