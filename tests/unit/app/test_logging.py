"""Logs as JSON."""

import json
import logging
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from app.core.logging import configure_logging
from app.core.settings import LogSettings


def test_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(level="info", format="json"))
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("a").info("happened", label="傷")
        logging.getLogger("library").warning("said %s", "this")
        structlog.get_logger("a").debug("unheard")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("happened", "info"),
        ("said this", "warning"),
    ]
    assert lines[0]["label"] == "傷"
    assert all(line["request_id"] == "r1" and line["timestamp"].endswith("Z") for line in lines)


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(level="info", format="console"))
    structlog.get_logger("a").info("happened", n=1)
    assert "happened" in capsys.readouterr().err


def test_what_cannot_be_written_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        configure_logging(LogSettings(level="info", format="json"))
        structlog.get_logger("a").info("happened", text="x" * 100_000)
        with suppress(OSError):
            full.close()
    structlog.get_logger("a").info("happened again")
