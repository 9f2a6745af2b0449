"""`shotline up`, `push` and `keys` as a person runs them: one terminal, real processes."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.api import Api, RequestFailed
from app.cli.up import Address, free_address
from models.errors import BadInput
from tests.e2e.service import SHOTLINE, Service, service_up
from tests.e2e.test_command_line import COLOURS, write_classes, write_image
from tests.integration import services
from tests.integration.services import wait_for

FAST = ["--set", "steps=10", "--set", "warmup_steps=1", "--set", "folds=2"]


def shotline(*args: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*SHOTLINE, *(str(arg) for arg in args)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("home")
    with service_up(home) as service:
        assert service.key
        yield service
    assert service.process.returncode == 0
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


def test_a_second_up_on_the_same_folder_says_so(up: Service) -> None:
    second = shotline("up", "--data", up.home, "--port", "0")
    assert second.returncode == 2
    text = " ".join(second.stderr.split())
    assert "already up" in text
    assert up.address in text
    assert str(up.process.pid) in text


def test_a_taken_port_is_named_and_costs_no_key(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = shotline("up", "--data", home, "--port", port)
    assert refused.returncode == 2
    text = " ".join(refused.stderr.split())
    assert f"Port {port} of 127.0.0.1 is taken" in text
    assert "--port" in text
    assert refused.stdout == ""
    assert not (home / "shotline.db").exists()


def test_the_first_key_is_seen_before_anything_else_can_fail(tmp_path: Path) -> None:
    # A gateway that refuses to start: anybody could reach it, and it would ask for no key.
    options = ("--data", tmp_path / "home", "--host", "0.0.0.0", "--port", 0)
    failed = shotline("up", *options, SHOTLINE_AUTH="off")
    assert failed.returncode == 2
    assert "The gateway ended with exit code 2" in failed.stderr
    assert "shown this once: sl_" in failed.stdout


def test_a_restart_keeps_the_data_and_makes_no_second_key(tmp_path: Path) -> None:
    with service_up(tmp_path / "home") as first, Api(first.address, first.key) as api:
        made = api.project("bearing cap")["id"]
    with service_up(tmp_path / "home") as second, Api(second.address, first.key) as api:
        assert api.project("bearing cap")["id"] == made
    assert second.key == ""


def test_a_worker_that_was_killed_comes_back(up: Service) -> None:
    def worker() -> set[int]:
        below = services.descendants(up.process.pid)
        return {
            pid
            for pid, command in below.items()
            if "worker.celery_app" in command and services.parent_of(pid) == up.process.pid
        }

    (killed,) = worker()
    services.kill(killed)
    wait_for(lambda: worker() - {killed}, "another worker")
    assert up.get("/readyz")["status"] == "ready"


def test_where_the_gateway_can_listen() -> None:
    assert str(Address("::1", 8000)) == "http://[::1]:8000"
    assert free_address("127.0.0.1", 0).port > 0
    with pytest.raises(BadInput, match=r"192\.0\.2\.1"):  # TEST-NET-1: nobody's own
        free_address("192.0.2.1", 8000)


def test_pushes_a_folder_promotes_and_answers(up: Service, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=8)
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

    (tmp_path / "lot" / "b").mkdir(parents=True)
    image.rename(tmp_path / "lot" / "b" / "1.png")
    (tmp_path / "lot" / "Thumbs.db").write_bytes(b"x")
    asked = shotline(
        *("predict", tmp_path / "lot", "--project", "Bearing Cap", "--json"),
        SHOTLINE_KEY=up.key,
        SHOTLINE_URL=up.address,
    )
    assert asked.returncode == 0, asked.stderr
    (row,) = json.loads(asked.stdout)
    assert row["image"] == row["image_id"] == str(tmp_path / "lot" / "b" / "1.png")
    assert row["decision"] == "ng"

    page = tmp_path / "report.html"
    for options, expected in (
        (("--language", "ja", "--out", page), ""),
        (("--version", 1, "--json"), '"title": "bearing cap"'),
    ):
        told = shotline(
            *("report", "--project", "Bearing Cap", "--url", up.address, *options),
            SHOTLINE_KEY=up.key,
        )
        assert told.returncode == 0, told.stderr
        assert expected in told.stdout
    assert '<html lang="ja">' in page.read_text("utf-8")
    missing = shotline(
        *("report", "--project", "Bearing Cap", "--url", up.address, "--version", 9),
        SHOTLINE_KEY=up.key,
    )
    assert missing.returncode == 2
    assert "no version 9" in " ".join(missing.stderr.split())


def test_gateway_worker_and_command_line_make_one_record(up: Service, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=4)
    pushed = shotline(
        *("push", folder, "--project", "audited", "--promote", "--url", up.address, *FAST),
        SHOTLINE_KEY=up.key,
    )
    assert pushed.returncode == 0, pushed.stderr
    assert shotline("keys", "create", "recorded", "--data", up.home).returncode == 0
    exported = shotline("audit", "export", "--data", up.home)
    entries = [json.loads(line) for line in exported.stdout.splitlines()]
    made = {(entry["actor"], entry["action"]) for entry in entries}
    assert made >= {
        ("Shotline itself", "schema.migrate"),
        ("shotline up", "key.create"),
        ("first admin", "project.create"),
        ("first admin", "image.upload"),
        ("first admin", "tuning.start"),
        ("the worker", "version.add"),
        ("the worker", "tuning.end"),
        ("first admin", "alias.promote"),
        ("the command line", "key.create"),
    }
    verified = shotline("audit", "verify", "--data", up.home)
    assert verified.returncode == 0, verified.stdout
    logged = (up.home / "logs" / "gateway.log").read_text()
    assert '"event": "audit_head"' in logged


def test_push_names_what_it_leaves_out(up: Service, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=3)
    (folder / "good" / "notes.txt").write_text("not a photograph")
    pushed = shotline(
        *("push", folder, "--project", "with notes", "--url", up.address, *FAST),
        SHOTLINE_KEY=up.key,
    )
    assert pushed.returncode == 0, pushed.stderr
    assert "notes.txt" in pushed.stderr
    assert "waits for `--promote`" in pushed.stdout


def test_push_in_several_requests_with_bad_files_and_litter(up: Service, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "a_scratch", n=60)
    for number in range(4):
        write_image(folder / "z_fine" / f"{number}.png", 7000 + number, COLOURS["good"])
    (folder / "z_fine" / "Thumbs.db").write_bytes(b"not a photograph")
    (folder / "z_fine" / "zzz.png").write_bytes(b"\x89PNG cut short")  # alone in the last request
    pushed = shotline(
        *("push", folder, "--project", "many", "--ok", "Z-Fine", "--url", up.address, *FAST),
        SHOTLINE_KEY=up.key,
    )
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stderr.count("Left out") == 1
    assert "z_fine/zzz.png" in pushed.stderr
    with Api(up.address, up.key) as api:
        classes = {it["name"]: it for it in api.project("many")["classes"]}
        assert {name: it["role"] for name, it in classes.items()} == {
            "a_scratch": "ng",
            "z_fine": "ok",
        }
        assert {name: it["images"]["train"] for name, it in classes.items()} == {
            "a_scratch": 60,
            "z_fine": 4,
        }


def test_push_without_a_key_or_gateway_says_what_to_do(up: Service, tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "photographs", "good", "scratch", n=3)
    no_key = shotline("push", folder, "--project", "x", "--url", up.address)
    assert no_key.returncode == 2
    assert "key" in no_key.stderr.lower()
    nobody = shotline("push", folder, "--project", "x", "--url", "http://127.0.0.1:9")
    assert nobody.returncode == 2
    assert "shotline up" in nobody.stderr


def test_keys_are_made_listed_and_revoked(up: Service) -> None:
    made = shotline("keys", "create", "line 3", "--role", "viewer", "--data", up.home)
    key = made.stdout.strip()
    assert key.startswith("sl_")
    with Api(up.address, key) as api:
        wait_for(lambda: accepts(api), "the new key", 10)
    listed = shotline("keys", "list", "--data", up.home).stdout
    assert "line 3" in listed
    assert key not in listed
    assert shotline("keys", "revoke", key[:11], "--data", up.home).returncode == 0
    with Api(up.address, key) as api:
        wait_for(lambda: not accepts(api), "the end of the key", 10)
        with pytest.raises(RequestFailed, match="API key"):
            api.call("GET", "/v1/projects")


def accepts(api: Api) -> bool:
    """Say whether the gateway takes the key; it reads its keys anew at least every second."""
    try:
        api.call("GET", "/v1/projects")
    except RequestFailed:
        return False
    return True


def test_a_key_of_a_project_by_its_name_in_any_spelling(up: Service) -> None:
    with Api(up.address, up.key) as api:
        project = api.project("Housing_Top side")["id"]
    options = ("--project", "housing top-SIDE", "--data", up.home)
    made = shotline("keys", "create", "line 4", *options)
    assert made.returncode == 0, made.stderr
    with Api(up.address, made.stdout.strip()) as api:
        wait_for(lambda: accepts(api), "the new key", 10)
        assert [it["id"] for it in api.call("GET", "/v1/projects").json()["items"]] == [project]
    unknown = shotline("keys", "create", "line 5", "--project", "none such", "--data", up.home)
    assert unknown.returncode == 2
    assert "'none such'" in unknown.stderr


def test_keys_on_a_folder_without_a_database_says_so(tmp_path: Path) -> None:
    result = shotline("keys", "list", "--data", tmp_path)
    assert result.returncode == 2
    assert "no Shotline database" in " ".join(result.stderr.split())
