"""`shotline backup`, `restore` and `verify`, as they are typed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.cli.up import note_holder, only_one
from app.core.database import Database
from app.core.settings import Settings
from app.core.storage import LocalStorage
from app.maintenance.backup import LAST_BACKUP
from models.artifact import Artifact
from tests.integration.kept import blobs, contents, fill

Run = Callable[..., Result]


@pytest.fixture
def run(settings: Settings, database_url: str) -> Run:
    """Run a command on the home of the test, or on another with no database of its own."""

    def invoke(*arguments: object, home: Path | None = None) -> Result:
        environment = {"SHOTLINE_HOME": str(home or settings.home), "COLUMNS": "200"}
        if home is None:
            environment["SHOTLINE_DATABASE_URL"] = database_url
        return CliRunner().invoke(app, [str(part) for part in arguments], env=environment)

    return invoke


@pytest.fixture
def filled(database: Database, storage: LocalStorage, artifacts: list[Artifact]) -> Database:
    fill(database, storage, artifacts)
    return database


def test_there_and_back(
    run: Run, filled: Database, storage: LocalStorage, settings: Settings, tmp_path: Path
) -> None:
    file, home = tmp_path / "backup.tar", tmp_path / "other home"
    wrote = run("backup", file)
    assert wrote.exit_code == 0, wrote.output
    assert f"Wrote {file}: " in wrote.stdout
    assert (settings.home / LAST_BACKUP).exists()  # which `shotline doctor` looks at
    again = run("backup", file)
    assert again.exit_code == 2
    assert "replace it with --force" in again.stderr
    assert run("backup", file, "--force").exit_code == 0

    restored = run("restore", file, home=home)
    assert restored.exit_code == 0, restored.output
    assert "Restored " in restored.stdout
    assert f"The key {home / 'audit.key'}, which seals the record" in restored.stderr
    assert "Nothing can be changed until the right one is put there." in restored.stderr
    missing = run("verify", home=home)
    assert missing.exit_code == 1
    assert "audit key" in missing.stdout
    (home / "audit.key").write_bytes((settings.home / "audit.key").read_bytes())
    well = run("verify", home=home)
    assert well.exit_code == 0, well.output
    assert "All is well: " in well.stdout

    refused = run("restore", file, home=home)
    assert refused.exit_code == 2
    assert "is not empty" in refused.stderr
    replaced = run("restore", file, "--replace", home=home)
    assert replaced.exit_code == 0, replaced.output
    assert replaced.stderr.count("What was there is now ") >= 2
    assert run("verify", home=home).exit_code == 0
    other = Database(f"sqlite:///{home / 'shotline.db'}")
    assert contents(filled) == contents(other)
    assert blobs(LocalStorage(home / "blobs")) == blobs(storage)
    other.close()


def test_findings_as_a_table_and_as_json(
    run: Run, filled: Database, storage: LocalStorage, tmp_path: Path
) -> None:
    lost = min(blobs(storage))
    storage.remove_old(lost, 0)
    table = run("verify")
    assert table.exit_code == 1
    assert "1 findings" in table.stdout
    assert "What to do" in table.stdout
    assert "tar" in table.stdout  # the fix; how it is broken into lines is the terminal's affair
    found = run("verify", "--json")
    assert found.exit_code == 1
    (finding,) = json.loads(found.stdout)["findings"]
    assert finding["check"] == "blob"
    assert lost in finding["where"]
    assert set(finding) == {"check", "where", "problem", "fix"}
    wrote = run("backup", tmp_path / "backup.tar")
    assert wrote.exit_code == 1
    assert f"  {lost} missing" in wrote.stderr
    assert (tmp_path / "backup.tar").exists()


def test_no_home_no_backup_and_no_verify(run: Run, tmp_path: Path) -> None:
    for command in (["backup", tmp_path / "backup.tar"], ["verify"]):
        result = run(*command, home=tmp_path / "nothing")
        assert result.exit_code == 2
        assert "holds no Shotline database" in result.stderr


def test_no_restore_into_a_home_in_use(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home in use"
    home.mkdir()
    with only_one(home) as lock:
        note_holder(lock, "http://127.0.0.1:8000, process 1")
        result = run("restore", tmp_path / "backup.tar", home=home)
    assert result.exit_code == 2
    assert "http://127.0.0.1:8000, process 1" in result.stderr


STOPPED = """
import os, signal, sys
import app.maintenance.archive as archive

def stop(*arguments):
    os.kill(os.getpid(), int(sys.argv[1]))
    signal.pause()

archive.shutil.copyfileobj = stop
from app.cli.main import app
app(["backup", sys.argv[2]])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_no_half_file(
    filled: Database, settings: Settings, database_url: str, tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    command = [sys.executable, "-c", STOPPED, str(int(number)), str(folder / "backup.tar")]
    environment = {"SHOTLINE_HOME": str(settings.home), "SHOTLINE_DATABASE_URL": database_url}
    done = subprocess.run(
        command,
        env={**os.environ, **environment, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "Stopped. " in done.stderr
    assert "backup.tar was not written." in done.stderr
    assert list(folder.iterdir()) == []
