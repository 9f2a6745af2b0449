"""Settings from the environment and from files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.errors import Forbidden
from app.core.settings import AuthSettings, DatabaseSettings, Settings
from models.errors import BadInput
from models.imaging import MAX_PIXELS


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHOTLINE_DATABASE_URL", "SHOTLINE_DATABASE_URL_FILE", "SHOTLINE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_everything_has_a_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOTLINE_HOME", str(tmp_path))
    settings = Settings()
    assert settings.database_url == f"sqlite:///{tmp_path}/shotline.db"
    assert settings.blob_folder == tmp_path / "blobs"
    assert settings.auth.auth == "on"


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOTLINE_DATABASE_POOL_SIZE", "3")
    monkeypatch.setenv("SHOTLINE_AUTH", "off")
    assert DatabaseSettings().pool_size == 3
    assert AuthSettings().auth == "off"


def test_a_secret_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql+psycopg://u:p@db/shotline\n")
    monkeypatch.setenv("SHOTLINE_DATABASE_URL_FILE", str(secret))
    settings = Settings()
    assert settings.database_url == "postgresql+psycopg://u:p@db/shotline"
    assert "u:p" not in repr(settings)
    monkeypatch.setenv("SHOTLINE_DATABASE_URL", "sqlite:///other.db")
    assert Settings().database_url == "sqlite:///other.db"


@pytest.mark.parametrize(
    ("name", "value"),
    [("SHOTLINE_DATABASE_POOL_SIZE", "0"), ("SHOTLINE_AUTH", "maybe"), ("SHOTLINE_PORT", "x")],
)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=f"^{name} is '{value}': ") as refused:
        Settings()
    assert refused.value.field == name


def test_a_database_that_is_none_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOTLINE_DATABASE_URL", "postgres://u:secret@db/shotline")
    with pytest.raises(BadInput, match=r"SHOTLINE_DATABASE_URL .*postgresql\+psycopg") as refused:
        Settings()
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOTLINE_QUEUE_URL_FILE", str(tmp_path / "none"))
    with pytest.raises(BadInput, match=r"SHOTLINE_QUEUE_URL_FILE .*none"):
        Settings()


@pytest.mark.parametrize("command", ["serve", "worker", "migrate"])
def test_a_command_says_so_in_two_lines(command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "app.cli.main", command],
        env={**os.environ, "SHOTLINE_LOG_LEVEL": "loud"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    error, fix = result.stderr.splitlines()
    assert "SHOTLINE_LOG_LEVEL is 'loud'" in error
    assert "SHOTLINE_LOG_LEVEL" in fix


def test_no_more_pixels_than_every_decoder_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOTLINE_LIMIT_IMAGE_PIXELS", str(MAX_PIXELS))
    assert Settings().limits.image_pixels == MAX_PIXELS
    monkeypatch.setenv("SHOTLINE_LIMIT_IMAGE_PIXELS", str(MAX_PIXELS + 1))
    with pytest.raises(BadInput, match="less than or equal to 50000000"):
        Settings()


def test_no_authentication_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOTLINE_AUTH", "off")
    Settings().require_safe_binding()
    monkeypatch.setenv("SHOTLINE_HOST", "192.168.0.7")
    with pytest.raises(Forbidden, match=r"192\.168\.0\.7"):
        Settings().require_safe_binding()
