"""What integrators copy, against a real service: all of `docs/api.md`, and the examples."""

import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.service import Service, service_up
from tests.e2e.test_command_line import write_image
from tests.integration.services import wait_for

ROOT = Path(__file__).parents[2]
COLOURS = {"good": (190, 70, 70), "scratch": (70, 70, 190), "へこみ": (70, 190, 70)}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A whole service, as `shotline up` runs it."""
    with tempfile.TemporaryDirectory(prefix="shotline-") as home, service_up(Path(home)) as running:
        yield running


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photographs` with a folder per class, `photographs.zip`, `holdout.zip` and `new.png`."""
    tmp_path = tmp_path_factory.mktemp("line")
    for index, (name, colour) in enumerate(COLOURS.items()):
        for number in range(1, 7):
            write_image(
                tmp_path / "photographs" / name / f"{number:04}.png", 100 * index + number, colour
            )
            write_image(
                tmp_path / "held" / name / f"{number}.png", 5000 + 100 * index + number, colour
            )
    for archive, folder in (("photographs", "photographs"), ("holdout", "held")):
        with zipfile.ZipFile(tmp_path / f"{archive}.zip", "w") as file:
            for path in sorted((tmp_path / folder).glob("*/*")):
                file.write(path, path.relative_to(tmp_path / folder))
    write_image(tmp_path / "new.png", 9999, COLOURS["scratch"])
    return tmp_path / "photographs"


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not here"
)
def test_every_command_of_the_page_works_and_every_operation_is_there(
    service: Service, photographs: Path
) -> None:
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs/api.md").read_text(), re.S | re.M)
    assert "sl_…" in blocks[0]
    script = "\n".join(
        [
            "set -euo pipefail",
            'curl() { command curl --fail-with-body "$@"; }',
            "export -f curl",
            blocks[0]
            .replace("http://127.0.0.1:8000", service.address)
            .replace("sl_…", service.key),
            *blocks[1:],
        ]
    )
    result = subprocess.run(
        ["bash", "-c", script], cwd=photographs.parent, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    for name in ("image.png", "thumbnail.jpg", "kept.png", "report.html", "model.safetensors"):
        assert (photographs.parent / name).stat().st_size > 100

    with urllib.request.urlopen(service.address + "/metrics", timeout=30) as answer:
        counted = re.findall(
            r'shotline_http_requests_total\{method="(\w+)",route="([^"]+)",status="2\d\d"\}',
            answer.read().decode(),
        )
    document = service.get("/openapi.json")
    described = {
        (method.upper(), path) for path, found in document["paths"].items() for method in found
    }
    missing = described - set(counted) - {("GET", "/metrics")}
    assert not missing


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="curl or jq is not here"
)
def test_the_session_of_the_readme_ends_with_a_decision(service: Service, tmp_path: Path) -> None:
    for label in ("good", "scratch"):
        for number in range(8):
            path = tmp_path / label / f"{number}.jpg"
            write_image(path, 300 * len(label) + number, COLOURS[label])
    write_image(tmp_path / "new.jpg", 9999, COLOURS["scratch"])
    (session,) = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    script = "\n".join(
        [
            "set -euo pipefail",
            'curl() { command curl --fail-with-body "$@"; }',
            session.replace("http://127.0.0.1:8000", service.address).replace("sl_…", service.key),
        ]
    )
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert '"decision":"ng","reason":"certain","label":"scratch"' in result.stdout


def run_example(
    service: Service, name: str, *args: object, url: str | None = None, key: str | None = None
) -> Any:
    command = [sys.executable, str(ROOT / "examples/python" / name), *map(str, args)]
    environment = os.environ | {
        "SHOTLINE_URL": url or service.address,
        "SHOTLINE_KEY": service.key if key is None else key,
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tuned(service: Service, photographs: Path) -> Any:
    """The project `bracket` with a version in production, as the example made it."""
    return run_example(
        service,
        "upload_and_tune.py",
        *(photographs, "--project", "bracket", "--promote-from", 0.5, "--steps", 40),
    )


def test_the_python_examples(service: Service, photographs: Path, tuned: Any) -> None:
    assert tuned.returncode == 0, tuned.stderr
    assert re.search(r"Version 1: macro accuracy \d\.\d{3} .*out-of-fold", tuned.stdout)
    assert "Version 1 is in production." in tuned.stdout

    new = photographs.parent / "new.png"
    decided = run_example(
        service,
        "predict.py",
        "--project",
        "Bracket",
        "--deadline",
        20,
        new,
        photographs / "good/0001.png",
    )
    assert decided.returncode == 1, decided.stderr  # not every one is ok
    first, second = decided.stdout.splitlines()
    assert first.split("\t")[:3] == ["new.png", "ng", "scratch"]
    assert second.split("\t")[:3] == ["0001.png", "ok", "good"]
    assert first.endswith("version 1\tcertain")

    unknown = run_example(service, "predict.py", "--project", "none such", new)
    assert unknown.returncode == 2
    assert "no project is called 'none such'" in unknown.stderr


def test_a_photograph_may_be_called_anything(
    service: Service, photographs: Path, tuned: object, tmp_path: Path
) -> None:
    new = shutil.copy(photographs.parent / "new.png", tmp_path / "傷 1.png")
    decided = run_example(service, "predict.py", "--project", "bracket", "--deadline", 20, new)
    assert decided.stdout.startswith("傷 1.png\tng\tscratch"), decided.stderr
    (project,) = service.get("/v1/projects?name=bracket")["items"]
    path = f"/v1/projects/{project['id']}/predictions?image_id={quote('傷 1.png')}"
    wait_for(lambda: len(service.get(path)["items"]) == 1, "the record", 10)


def test_what_cannot_be_asked_is_not_a_bad_part(service: Service, photographs: Path) -> None:
    new = photographs.parent / "new.png"
    no_key = run_example(service, "predict.py", "--project", "bracket", new, key="")
    assert no_key.returncode == 2
    assert "SHOTLINE_KEY" in no_key.stderr
    missing = run_example(service, "predict.py", "--project", "bracket", "no such.png")
    nobody = run_example(
        service, "predict.py", "--project", "bracket", new, url="http://127.0.0.1:9"
    )
    for failed in (missing, nobody):
        assert failed.returncode == 2
        assert failed.stderr.startswith("No decision: ")


def test_the_upload_goes_on_behind_files_that_cannot_be_used(
    service: Service, tmp_path: Path
) -> None:
    folder = tmp_path / "photographs"
    (folder / "broken").mkdir(parents=True)
    for number in range(33):  # the last one is alone in its request
        (folder / "broken" / f"{number:02}.png").write_bytes(b"cut short, %d" % number)
    for number in range(3):
        write_image(folder / "good" / f"{number}.png", number, COLOURS["good"])
    (folder / "good" / "Thumbs.db").write_bytes(b"not a photograph")
    result = run_example(service, "upload_and_tune.py", folder, "--project", "broken")
    assert result.returncode == 1  # one class has no photographs
    *rejected, failed = result.stderr.splitlines()
    assert [line.partition(":")[0] for line in rejected] == [f"{it:02}.png" for it in range(33)]
    assert failed.startswith("Failed: ")
    (project,) = service.get("/v1/projects?name=broken")["items"]
    counts = {it["name"]: it["images"]["train"] for it in project["classes"]}
    assert counts == {"broken": 0, "good": 3}


def test_a_lost_answer_is_asked_for_again_and_recorded_once(
    service: Service, photographs: Path, tuned: object
) -> None:
    (project,) = service.get("/v1/projects?name=bracket")["items"]
    before = service.get(f"/v1/projects/{project['id']}/predictions?image_id=new.png")["items"]
    with losing_the_first_answer(service.address) as proxy:
        decided = run_example(
            service,
            "predict.py",
            *("--project", "bracket", "--deadline", 30, photographs.parent / "new.png"),
            url=proxy.address,
        )
    assert decided.stdout.startswith("new.png\tng\tscratch"), decided.stderr
    assert proxy.lost == ["", "true"]  # made and lost, then given again
    after = service.get(f"/v1/projects/{project['id']}/predictions?image_id=new.png")["items"]
    assert len(after) == len(before) + 1


class losing_the_first_answer:  # noqa: N801 - a context manager, named as it reads
    """A proxy that hands every request on and cuts the connection in the first answer to a POST.

    Attributes:
        lost: `Idempotent-Replayed` of each answer to a POST, the lost one first.
    """

    def __init__(self, address: str) -> None:
        self.lost: list[str] = []
        host = address.removeprefix("http://")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def hand_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                gateway = http.client.HTTPConnection(host)
                gateway.request(self.command, self.path, body, dict(self.headers))
                answer = gateway.getresponse()
                content = answer.read()
                gateway.close()
                if self.command == "POST":
                    proxy.lost.append(answer.headers.get("Idempotent-Replayed", ""))
                    if len(proxy.lost) == 1:
                        self.close_connection = True
                        return
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = hand_on  # noqa: N815 - http.server's names

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "losing_the_first_answer":
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.skipif(shutil.which("dotnet") is None, reason="the .NET SDK is not here")
def test_the_csharp_example_builds(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "examples/csharp", tmp_path / "csharp")
    subprocess.run(["dotnet", "build"], cwd=folder, check=True)
