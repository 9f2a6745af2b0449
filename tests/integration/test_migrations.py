"""The schema's history, on both databases."""

import subprocess
import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from app import migrations
from app.core.database import Database
from app.core.tables import Table


def test_the_head_is_what_the_tables_say(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    assert migrations.current(database) is None
    migrations.upgrade(database)
    assert migrations.current(database) == migrations.head()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    database.close()


def test_the_way_back_leaves_nothing(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    migrations.upgrade(database)
    migrations.downgrade(database, "base")
    with database.engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    migrations.upgrade(database)
    database.close()


def test_two_gateways_may_start_together(empty_database_url: str) -> None:
    code = (
        "import sys; from app import migrations; from app.core.database import Database;"
        "migrations.upgrade(Database(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, empty_database_url]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in started] == [("", 0)] * 3


def test_sqlite_is_set_up_to_survive(empty_database_url: str, database_kind: str) -> None:
    if database_kind != "sqlite":
        return
    database = Database(empty_database_url)
    with database.engine.connect() as connection:
        read = connection.exec_driver_sql
        assert read("PRAGMA journal_mode").scalar() == "wal"
        assert read("PRAGMA synchronous").scalar() == 2
        assert read("PRAGMA foreign_keys").scalar() == 1
        assert read("PRAGMA busy_timeout").scalar() == 10_000
    database.close()
