"""`shotline up`, `push` and `keys` as a person runs them: one terminal, real processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from app.cli.api import Api, RequestFailed
from tests.e2e.test_command_line import COLOURS, write_classes, write_image

SHOTLINE = [sys.executable, "-m", "app.cli.main"]
FAST = ["--set", "steps=10", "--set", "warmup_steps=1", "--set", "folds=2"]


class Up(NamedTuple):
    """A running service."""

    process: "subprocess.Popen[str]"
    home: Path
    address: str
    key: str


def shotline(*args: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*SHOTLINE, *(str(arg) for arg in args)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [*SHOTLINE, "up", "--data", str(home), "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        address = re.search(r"at (http://\S+)", process.stdout.readline())
        key = re.search(r"this once: (\S+)", process.stdout.readline())
        assert address
        assert key, (home / "logs").iterdir()
        yield Up(process, home, address[1], key[1])
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    for name in ("redis", "worker", "gateway"):
        assert (home / "logs" / f"{name}.log").exists()
    assert children_of(home) == []


def children_of(home: Path) -> list[str]:
    """Return the command lines of processes that still name the data folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"SHOTLINE_HOME={home}" in environment or str(home) in command:
            found.append(command)
    return found


def test_a_second_up_on_the_same_folder_says_so(up: Up) -> None:
    second = shotline("up", "--data", up.home, "--port", "0")
    assert second.returncode == 2
    text = " ".join(second.stderr.split())
    assert "already up" in text
    assert up.address in text
    assert str(up.process.pid) in text


def test_pushes_a_folder_promotes_and_answers(up: Up, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=4)
    pushed = shotline(
        *("push", folder, "--project", "bearing cap", "--promote", "--url", up.address),
        *("--set", "steps=60", "--set", "folds=2"),
        SHOTLINE_KEY=up.key,
    )
    assert pushed.returncode == 0, pushed.stderr
    assert "Version 1 answers as production" in pushed.stdout
    with Api(up.address, up.key) as api:
        project = api.project("bearing cap")["id"]
        image = write_image(tmp_path / "new.png", 999, COLOURS["scratch"])
        answer = api.predict(project, image.read_bytes())
    assert answer["decision"] == "ng"
    assert answer["label"] == "scratch"
    assert answer["model"]["version"] == 1


def test_push_names_what_it_leaves_out(up: Up, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=3)
    (folder / "good" / "notes.txt").write_text("not a photograph")
    pushed = shotline(
        *("push", folder, "--project", "with notes", "--url", up.address, *FAST),
        SHOTLINE_KEY=up.key,
    )
    assert pushed.returncode == 0, pushed.stderr
    assert "notes.txt" in pushed.stderr
    assert "waits for `--promote`" in pushed.stdout


def test_push_without_a_key_or_gateway_says_what_to_do(up: Up, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=3)
    no_key = shotline("push", folder, "--project", "x", "--url", up.address)
    assert no_key.returncode == 2
    assert "key" in no_key.stderr.lower()
    nobody = shotline("push", folder, "--project", "x", "--url", "http://127.0.0.1:9")
    assert nobody.returncode == 2
    assert "shotline up" in nobody.stderr


def test_keys_are_made_listed_and_revoked(up: Up) -> None:
    made = shotline("keys", "create", "line 3", "--role", "viewer", "--data", up.home)
    key = made.stdout.strip()
    assert key.startswith("sl_")
    with Api(up.address, key) as api:
        assert "items" in wait_for_key(api)
    listed = shotline("keys", "list", "--data", up.home).stdout
    assert "line 3" in listed
    assert key not in listed
    assert shotline("keys", "revoke", key[:11], "--data", up.home).returncode == 0
    with Api(up.address, key) as api:
        assert "key" in refusal(api).problem


def wait_for_key(api: Api) -> dict[str, object]:
    """Ask until the gateway has read its keys anew, which it does at least every second."""
    while True:
        with contextlib.suppress(RequestFailed):
            return dict(api.call("GET", "/v1/projects").json())


def refusal(api: Api) -> RequestFailed:
    """Ask until the gateway refuses the key."""
    while True:
        try:
            api.call("GET", "/v1/projects")
        except RequestFailed as error:
            return error


def test_keys_on_a_folder_without_a_database_says_so(tmp_path: Path) -> None:
    result = shotline("keys", "list", "--data", tmp_path)
    assert result.returncode == 2
    assert "no Shotline database" in " ".join(result.stderr.split())
