"""Settings from the environment and from files."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.core.errors import Forbidden
from app.core.settings import AuthSettings, DatabaseSettings, Settings
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
    with pytest.raises(ValidationError):
        Settings()


def test_no_more_pixels_than_every_decoder_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOTLINE_LIMIT_IMAGE_PIXELS", str(MAX_PIXELS))
    assert Settings().limits.image_pixels == MAX_PIXELS
    monkeypatch.setenv("SHOTLINE_LIMIT_IMAGE_PIXELS", str(MAX_PIXELS + 1))
    with pytest.raises(ValidationError, match="less than or equal to 50000000"):
        Settings()


def test_no_authentication_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOTLINE_AUTH", "off")
    Settings().require_safe_binding()
    monkeypatch.setenv("SHOTLINE_HOST", "192.168.0.7")
    with pytest.raises(Forbidden, match=r"192\.168\.0\.7"):
        Settings().require_safe_binding()
