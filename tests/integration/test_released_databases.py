"""Databases of every released revision: forward with their rows, whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import select

from app import migrations
from app.core.database import Database
from app.core.errors import Conflict
from app.core.storage import LocalStorage
from app.core.tables import Table
from app.maintenance.backup import backup
from app.maintenance.restore import Place, restore
from app.maintenance.rows import columns_of, read_rows
from app.maintenance.upgrade import upgrade
from app.maintenance.verify import verify
from models.artifact import Artifact
from models.errors import StorageFull
from tests.integration import released, tiny
from tests.integration.kept import contents

REVISIONS = sorted(released.TABLES)


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "blobs")


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.close()


@pytest.fixture
def values(storage: LocalStorage, artifacts: list[Artifact]) -> Mapping[str, str]:
    """Digests of what the rows name, stored."""
    header = artifacts[0].header
    return {
        "photograph": storage.put(tiny.photograph(0, 0)),
        "part": storage.put(b"{}\n"),
        "artifact": storage.put(artifacts[0].to_bytes()),
        "artifact_digest": artifacts[0].digest,
        "backbone": header.backbone_digest,
        "snapshot_digest": header.snapshot,
        "classes": json.dumps([spec.model_dump() for spec in header.classes]),
    }


@pytest.fixture
def at_revision(empty: Database, values: Mapping[str, str]) -> Callable[[str], Database]:
    """Bring the database to a revision, with rows in every table."""

    def make(revision: str) -> Database:
        migrations.upgrade(empty, revision)
        with empty.engine.begin() as connection:
            for statement in released.statements(revision, values):
                connection.exec_driver_sql(statement)
        assert all(contents(empty).values())
        return empty

    return make


def same_rows(database: Database, before: Mapping[str, list[str]], columns: object) -> None:
    """Assert that every row is there with the values that its columns had."""
    assert isinstance(columns, dict)
    with database.reading() as session:
        connection = session.connection()
        for table, kinds in columns.items():
            rows = [json.dumps(row, sort_keys=True) for row in read_rows(connection, table, kinds)]
            assert sorted(rows) == before[table], table


def columns(database: Database) -> object:
    with database.reading() as session:
        return columns_of(session.connection())


def test_every_revision_has_its_rows_here() -> None:
    """Who releases a migration says here what a database before it holds."""
    known = {script.revision for script in migrations._scripts().walk_revisions()}
    assert set(REVISIONS) == known


@pytest.mark.parametrize("revision", REVISIONS)
def test_forward_with_all_rows(
    at_revision: Callable[[str], Database], storage: LocalStorage, revision: str
) -> None:
    database = at_revision(revision)
    before, then = contents(database), columns(database)
    done = upgrade(database, copy=False)
    assert (done.before, done.after) == (revision, migrations.head())
    same_rows(database, before, then)
    with database.reading() as session:
        for mapper in Table.registry.mappers:
            session.scalars(select(mapper.class_)).all()
    assert verify(database, storage).found == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_backup_of_an_old_revision_is_migrated_when_it_is_restored(
    at_revision: Callable[[str], Database], storage: LocalStorage, tmp_path: Path, revision: str
) -> None:
    database = at_revision(revision)
    before, then = contents(database), columns(database)
    assert backup(database, storage, tmp_path / "old.tar").revision == revision
    assert migrations.current(database) == revision
    new = Database(f"sqlite:///{tmp_path / 'new.db'}")
    restore(tmp_path / "old.tar", Place(new, tmp_path / "new blobs"))
    assert migrations.current(new) == migrations.head()
    same_rows(new, before, then)
    assert verify(new, LocalStorage(tmp_path / "new blobs")).found == []
    new.close()


# Migrations that fail

BROKEN = """
import os, signal
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9000", "{head}", None, None

def upgrade():
    op.create_table("extra", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("projects", sa.Column("extra", sa.Text(), nullable=True))
    op.execute("UPDATE projects SET name = 'changed', extra = 'x'")
    op.drop_table("aliases")
    {end}
"""


def located(folder: Path) -> Callable[[], Config]:
    """Return what makes alembic find one more migration, in `folder`."""
    own = migrations._located

    def locate() -> Config:
        config = own()
        versions = Path(migrations.__file__).parent / "versions"
        config.set_main_option("path_separator", "os")
        config.set_main_option("version_locations", os.pathsep.join([str(versions), str(folder)]))
        return config

    return locate


def write_broken(folder: Path, end: str) -> None:
    folder.mkdir(exist_ok=True)
    text = BROKEN.format(head=migrations.head(), end=end)
    (folder / "9000_broken.py").write_text(text)


def test_a_migration_that_fails_leaves_all_as_it_was(
    at_revision: Callable[[str], Database],
    storage: LocalStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = at_revision(REVISIONS[-1])
    before, then = contents(database), columns(database)
    write_broken(tmp_path / "more", "raise RuntimeError('in the middle')")
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_located", located(tmp_path / "more"))
        with pytest.raises(RuntimeError, match="in the middle"):
            upgrade(database, copy=False)
    assert migrations.current(database) == migrations.head()
    assert contents(database) == before
    assert columns(database) == then
    assert verify(database, storage).found == []  # this version goes on with it


KILLED = """
import sys
from pathlib import Path
from app import migrations
from app.core.database import Database
from tests.integration.test_released_databases import located

migrations._located = located(Path(sys.argv[2]))
migrations.upgrade(Database(sys.argv[1]))
"""


def test_a_migration_that_is_killed_leaves_all_as_it_was(
    at_revision: Callable[[str], Database], storage: LocalStorage, tmp_path: Path
) -> None:
    database = at_revision(REVISIONS[-1])
    before = contents(database)
    url = database.url.render_as_string(hide_password=False)
    database.close()
    write_broken(tmp_path / "more", "os.kill(os.getpid(), signal.SIGKILL)")
    command = [sys.executable, "-c", KILLED, url, str(tmp_path / "more")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert migrations.current(database) == migrations.head()
    assert contents(database) == before
    assert verify(database, storage).found == []
    write_broken(tmp_path / "more", "pass")  # the next try goes through
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert migrations.current(database) == "9000"
    with pytest.raises(Conflict, match=r"'9000', which Shotline .* does not know"):
        upgrade(database)


# The command


def migrate(url: str, home: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {"SHOTLINE_HOME": str(home), "SHOTLINE_DATABASE_URL": url}
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli.main", "migrate", *options],
        env={**os.environ, **environment, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_at_once_and_the_copy_of_the_old_one(
    at_revision: Callable[[str], Database], tmp_path: Path, database_kind: str
) -> None:
    database = at_revision("0001")
    before, then = contents(database), columns(database)
    url = database.url.render_as_string(hide_password=False)
    database.close()
    started = [migrate(url, tmp_path / "home") for _ in range(3)]
    ended = [(process.communicate(), process.returncode) for process in started]
    assert [code for _, code in ended] == [0, 0, 0], ended
    assert all(f"is at revision {migrations.head()}." in out for (out, _), _ in ended)
    same_rows(database, before, then)
    if database_kind == "sqlite":
        kept = Path(database.url.database or "").with_name("empty.db.at-0001")
        assert any(str(kept) in err for (_, err), _ in ended)
        copy = Database(f"sqlite:///{kept}")
        assert migrations.current(copy) == "0001"
        assert contents(copy) == before
        copy.close()
    assert not list(tmp_path.glob(".empty.db*"))


def test_a_newer_database_is_refused_in_two_lines(
    at_revision: Callable[[str], Database], tmp_path: Path
) -> None:
    database = at_revision(REVISIONS[-1])
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    before = contents(database)
    process = migrate(database.url.render_as_string(hide_password=False), tmp_path / "home")
    _, err = process.communicate()
    assert process.returncode == 2
    assert "Error: The database is at revision '9999', which Shotline" in err
    assert "Fix:   Install that newer version, or restore the backup" in err
    assert contents(database) == before


def test_no_migration_without_the_copy_where_the_disk_is_full(
    at_revision: Callable[[str], Database], database_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database_kind != "sqlite":
        pytest.skip("only SQLite is copied")
    database = at_revision("0002")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.maintenance.upgrade.flush_to_disk", full)
    with pytest.raises(StorageFull):
        upgrade(database)
    assert migrations.current(database) == "0002"
    assert upgrade(database, copy=False).after == migrations.head()


def test_the_way_back_is_the_copy(
    at_revision: Callable[[str], Database], database_kind: str
) -> None:
    """As docs/backup.md says: put the copy in the place of the database."""
    if database_kind != "sqlite":
        pytest.skip("only SQLite is copied")
    database = at_revision("0002")
    before = contents(database)
    done = upgrade(database)
    assert done.copy is not None
    database.close()
    path = Path(database.url.database or "")
    shutil.move(done.copy, path)
    for left in ("-wal", "-shm"):
        path.with_name(path.name + left).unlink(missing_ok=True)
    assert migrations.current(database) == "0002"
    assert contents(database) == before
