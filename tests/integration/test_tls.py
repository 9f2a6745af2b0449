"""TLS of the gateway itself, and a command line that knows whom to trust: real processes."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.api import Api, RequestFailed
from app.cli.main import app
from app.core.settings import Settings
from app.maintenance import doctor_service
from app.maintenance.doctor import Box
from models.errors import BadInput
from tests.integration.certificates import Certificates, make_certificates
from tests.integration.listening import Line
from tests.integration.services import environment_of, gateway


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Nothing here asks the database."""
    kind: str = request.param
    return kind


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "certificates")


@pytest.fixture
def address(settings: Settings, tmp_path: Path, certificates: Certificates) -> Iterator[str]:
    queue = f"redis+socket://{tmp_path / 'none.sock'}"
    environment = environment_of(settings, queue) | certificates.environment()
    with gateway(environment, tmp_path / "gateway.log", status="degraded") as address:
        yield address


def test_a_gateway_with_a_certificate(address: str, certificates: Certificates) -> None:
    assert address.startswith("https://")
    with Api(address, None, certificates.authority) as api:
        assert api.call("GET", "/livez").json() == {"status": "alive"}
    with (
        Api(address, None) as api,
        pytest.raises(RequestFailed, match="Nobody whom this machine trusts") as caught,
    ):
        api.call("GET", "/livez")
    assert "SHOTLINE_CA_FILE" in caught.value.fix
    host, port = _place(address)
    with (
        Api(f"https://localhost:{port}", None, certificates.authority) as api,
        pytest.raises(RequestFailed, match="Nobody whom this machine trusts"),
    ):
        api.call("GET", "/livez")
    with Line((host, port)) as line:  # who speaks without TLS is answered nothing
        line.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in line.socket.recv(65536)


def test_the_doctor_asks_a_gateway_whatever_its_certificate_says(
    settings: Settings, address: str
) -> None:
    box = Box.of(settings, address)
    (found,) = doctor_service.check_gateway(box)
    box.close()
    assert found.status == "warning"  # it has no Redis here
    assert f"The gateway at {address} is degraded: queue failed" in found.found


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_old_versions_of_tls_are_refused(address: str, certificates: Certificates) -> None:
    place = _place(address)
    context = ssl.create_default_context(cafile=certificates.authority)
    with (
        socket.create_connection(place) as plain,
        context.wrap_socket(plain, server_hostname=place[0]) as secure,
    ):
        assert secure.version() in {"TLSv1.2", "TLSv1.3"}
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(place) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname=place[0])


def _place(address: str) -> tuple[str, int]:
    host, port = address.removeprefix("https://").split(":")
    return host, int(port)


def test_a_file_that_holds_no_certificates(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    for path in (tmp_path / "no.pem", tmp_path / "none.pem"):
        with pytest.raises(BadInput, match=path.name):
            Api("https://127.0.0.1:9", None, path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"SHOTLINE_TLS_KEY_FILE": ""}, "cannot be used"),
        ({"SHOTLINE_TLS_KEY_FILE": "other"}, "cannot be used"),
        ({"SHOTLINE_TLS_CERTIFICATE_FILE": "none"}, "cannot be used"),
        ({"SHOTLINE_TLS_CERTIFICATE_FILE": None}, "CERTIFICATE_FILE is not set"),
        ({"SHOTLINE_TLS_KEY_FILE": None}, "KEY_FILE is not set"),
    ],
    ids=["an empty name", "another's key", "a missing file", "a key alone", "a certificate alone"],
)
def test_files_that_do_not_go_together_are_refused_at_once(
    settings: Settings,
    tmp_path: Path,
    certificates: Certificates,
    wrong: dict[str, str | None],
    says: str,
) -> None:
    other = make_certificates(tmp_path / "other")
    names = {"other": str(other.key), "none": str(tmp_path / "none.pem"), "": ""}
    given = environment_of(settings, "redis+socket:///none") | certificates.environment()
    for name, value in wrong.items():
        given.pop(name)
        if value is not None:
            given[name] = names[value]
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "serve"],
        env=_without_tls() | given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2
    text = " ".join(ended.stderr.split())
    assert says in text
    assert "Traceback" not in text


def _without_tls() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SHOTLINE_TLS")}


def test_the_command_line_takes_the_authority_by_option_and_by_variable(
    address: str, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "1.png").write_bytes(b"x")
    asked = ["predict", str(tmp_path / "1.png"), "--project", "x", "--url", address]
    for more, environment in (
        (["--ca-file", str(certificates.authority)], {}),
        ([], {"SHOTLINE_CA_FILE": str(certificates.authority)}),
    ):
        result = CliRunner().invoke(app, [*asked, *more], env=environment)
        assert "no API key" in result.output
