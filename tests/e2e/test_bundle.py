"""`shotline bundle` and the installer in it, on a box without a network."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.maintenance.wheels import environment, own_wheel
from tests.integration import tiny

# What the command line's start needs. All else is in the test's bundle by name alone: PyTorch and
# the rest would be gigabytes.
_REAL = {"annotated-doc", "markdown-it-py", "mdurl", "pygments", "rich", "shellingham", "typer"}


def pack(found: Distribution, folder: Path) -> None:
    """Write the wheel that a package was installed from; of most its metadata alone."""
    files = [
        one for one in found.files or []
        if ".." not in one.parts and "__pycache__" not in one.parts and one.suffix != ".pyc"
    ]  # fmt: skip
    files = [one for one in files if one.locate().is_file()]
    hollow = canonicalize_name(found.name) not in _REAL
    info = next(one.parts[0] for one in files if one.parts[0].endswith(".dist-info"))
    tags = [line for line in (found.read_text("WHEEL") or "").splitlines() if "Tag:" in line]
    fitting = next((tag for tag in tags if "py3-" in tag), tags[0])  # not that of Python 2
    tag = "py3-none-any" if hollow else fitting.split(":")[1].strip()
    stem = info.removesuffix(".dist-info")
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as wheel:
        records = []
        for one in files:
            mine = one.parts[0] == info
            if one.name in ("RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json"):
                continue
            if hollow and not (mine and one.name == "METADATA"):
                continue
            data = one.read_binary()
            wheel.writestr(str(one), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            records.append(f"{one},sha256={digest},{len(data)}\n")
        text = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
        wheel.writestr(f"{info}/WHEEL", text)
        wheel.writestr(f"{info}/RECORD", "".join([*records, f"{info}/RECORD,,\n"]))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of everything that Shotline needs."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in environment():
        if name != "shotline":
            pack(distribution(name), folder)
    return folder


def make(*arguments: object, environ: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, ["bundle", *map(str, arguments)], env=environ)


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def bundle(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked bundle with wheels and a backbone."""
    folder = tmp_path_factory.mktemp("bundle")
    tiny.write_backbone(folder / "stick" / "tiny clip")
    made = make(
        folder / "shotline.tar", "--wheels", wheels, "--without", "images",
        "--backbone", folder / "stick" / "tiny clip", "--json",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    answer = json.loads(made.stdout)
    archive = folder / "shotline.tar"
    assert answer["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert set(answer["parts"]) == {"wheels", "backbones"}
    assert {path.name for path in folder.iterdir()} == {"stick", "shotline.tar"}
    return unpack(archive, folder / "unpacked")


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """The bundle, to be spoilt."""
    return Path(shutil.copytree(bundle, tmp_path / "copy", copy_function=os.link))


def rewrite(path: Path, data: bytes) -> None:
    path.unlink()  # a link to the bundle of all tests
    path.write_bytes(data)


def without_network() -> list[str]:
    """The command in front of one that then sees no network, not even the loopback."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare(1) is not here")
    tried = subprocess.run([unshare, "-n", "true"], check=False, capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"a network cannot be taken away here: {tried.stderr.strip()}")
    return [unshare, "-n"]


def install(
    bundle: Path, prefix: Path, *options: str, before: list[str] | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ |= {"SHOTLINE_PYTHON": sys.executable, "PIP_INDEX_URL": "http://192.0.2.1/"}
    command = [*(before or []), str(bundle / "install.sh"), "--prefix", str(prefix), *options]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environ | variables, cwd="/"
    )


def run_installed(prefix: Path, *arguments: str, before: list[str] | None = None) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [*(before or []), str(prefix / "current/bin/shotline"), *arguments]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environ, cwd="/")
    return ran.stdout


# --- what is in it


def test_every_file_has_its_checksum(bundle: Path) -> None:
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    named = {line[66:]: line[:64] for line in lines}
    there = {str(p.relative_to(bundle)): p for p in bundle.rglob("*") if p.is_file()}
    assert set(named) == set(there) - {"SHA256SUMS"}
    for name, digest in named.items():
        assert hashlib.sha256(there[name].read_bytes()).hexdigest() == digest
    assert {
        "install.sh", "docker-compose.yml", ".env.example", "deploy/make-secrets", "docs/airgap.md",
        "constraints.txt", "requirements.txt", "backbones/tiny clip/open_clip_model.safetensors",
    } <= set(there)  # fmt: skip


def test_the_wheels_are_those_that_run_here_and_no_others(bundle: Path) -> None:
    lines = (bundle / "requirements.txt").read_text().splitlines()
    pins = dict(line.split(" ")[0].split("==") for line in lines)
    pins = {name.lower().replace("_", "-").replace(".", "-"): pin for name, pin in pins.items()}
    assert pins == environment()
    assert len(list((bundle / "wheels").glob("*.whl"))) == len(pins)


def test_the_own_wheel_holds_what_a_bundle_is_made_of(tmp_path: Path) -> None:
    with zipfile.ZipFile(own_wheel(tmp_path)) as wheel:
        names = set(wheel.namelist())
    assert {
        "app/cli/main.py", "worker/celery_app.py", "models/starter/open_clip_model.safetensors",
        "app/migrations/script.py.mako", "app/maintenance/box/docker-compose.yml",
        "app/maintenance/box/deploy/install.sh",
    } <= names  # fmt: skip
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


# --- what is not here is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--without", "images", "--wheels", "EMPTY"], "holds no wheels"),
        (["--without", "images", "--wheels", "nowhere"], "holds no wheels"),
        (["--without", "images", "--wheels", "ONE"], "cannot be installed from these wheels"),
        (["--without", "wheels"], "there is no docker here"),
        (
            ["--without", "images", "--without", "wheels", "--backbone", "EMPTY"],
            "is no backbone",
        ),
        (["--without", "images", "--without", "nonsense"], "no part 'nonsense'"),
    ],
)
def test_what_is_missing_is_refused(
    tmp_path: Path, wheels: Path, options: list[str], says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("EMPTY", "ONE", "bin", "out"):
        (tmp_path / name).mkdir()
    shutil.copy(next(wheels.glob("typer-*")), tmp_path / "ONE")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no docker
    monkeypatch.chdir(tmp_path)
    refused = make(tmp_path / "out" / "b.tar", *options)
    assert refused.exit_code == 2, refused.output
    said = refused.stderr.replace("\n", " ")
    assert says in said
    assert "Fix:" in said
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["b.zip", "b", "nowhere/b.tar"])
def test_where_it_cannot_be_written(tmp_path: Path, name: str) -> None:
    assert make(tmp_path / name, "--without", "images", "--without", "wheels").exit_code == 2


def test_a_configured_backbone_that_is_no_file(tmp_path: Path) -> None:
    options = ["--without", "images", "--without", "wheels"]
    source = {"SHOTLINE_BACKBONE_SOURCE": "ViT-B-32/laion2b_s34b_b79k"}
    refused = make(tmp_path / "b.tar", *options, environ=source)
    assert refused.exit_code == 2
    assert "--without backbones" in refused.stderr.replace("\n", " ")
    made = make(tmp_path / "b.tar.gz", *options, "--without", "backbones", environ=source)
    assert made.exit_code == 0, made.output
    again = make(tmp_path / "b.tar.gz", *options, "--without", "backbones", environ=source)
    assert "exists" in again.stderr
    taken = {"SHOTLINE_BACKBONE_SOURCE": tiny.write_backbone(tmp_path / "mine")}
    forced = make(tmp_path / "b.tar.gz", *options, "--force", "--json", environ=taken)
    assert "backbones" in json.loads(forced.stdout)["parts"]
    assert (unpack(tmp_path / "b.tar.gz", tmp_path / "u") / "backbones/mine").is_dir()


# --- installed without a network


def test_it_is_installed_run_and_upgraded_without_a_network(
    bundle: Path, copy: Path, tmp_path: Path
) -> None:
    alone, prefix = without_network(), tmp_path / "opt"
    first = install(bundle, prefix, "--mode", "venv", before=alone)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "shotline up --data" in first.stdout
    assert run_installed(prefix, "--version", before=alone).startswith("shotline ")
    assert "doctor" in run_installed(prefix, "--help", before=alone)
    inside = prefix.resolve() / "versions"
    (version,) = inside.iterdir()
    packed = "lib/*/site-packages/app/maintenance/box/docker-compose.yml"
    assert list(version.glob(packed))
    backbone = prefix / "data/backbones/tiny clip/open_clip_model.safetensors"
    assert backbone.is_file()
    backbone.write_bytes(b"changed by hand")

    again = install(bundle, prefix, "--mode", "venv", before=alone)
    assert "is installed" in again.stdout
    assert not (prefix / "previous").exists()

    rewrite(copy / "README.txt", b"another bundle of the same version")
    _sum_again(copy)
    upgraded = install(copy, prefix, "--mode", "venv", before=alone)
    assert upgraded.returncode == 0, upgraded.stderr
    assert "take a backup" in upgraded.stdout
    assert (prefix / "previous").resolve() == version
    assert (prefix / "current").resolve() != version
    assert backbone.read_bytes() == b"changed by hand"

    back = install(copy, prefix, "--back", before=alone)
    assert back.returncode == 0, back.stderr
    assert (prefix / "current").resolve() == version
    assert run_installed(prefix, "--version").startswith("shotline ")


def _sum_again(bundle: Path) -> None:
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(bundle)}\n"
        for path in sorted(bundle.rglob("*"))
        if path.is_file() and path.name != "SHA256SUMS"
    ]
    rewrite(bundle / "SHA256SUMS", "".join(lines).encode())


def _flip(path: Path) -> None:
    rewrite(path, path.read_bytes()[:-1] + b"?")


Spoil = Callable[[Path], None]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda copy: _flip(copy / "docker-compose.yml"), "damaged or incomplete"),
        (lambda copy: next((copy / "wheels").glob("typer-*")).unlink(), "damaged or incomplete"),
        (lambda copy: _flip(next((copy / "wheels").glob("rich-*"))), "damaged or incomplete"),
    ],
)
def test_a_damaged_bundle_installs_nothing(
    copy: Path, tmp_path: Path, spoil: Spoil, says: str
) -> None:
    spoil(copy)
    refused = install(copy, tmp_path / "opt", "--mode", "venv")
    assert refused.returncode == 2
    assert says in refused.stderr
    assert not (tmp_path / "opt").exists()


def test_an_upgrade_that_fails_leaves_what_runs(bundle: Path, copy: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "opt"
    assert install(bundle, prefix, "--mode", "venv").returncode == 0
    before = (prefix / "current").resolve()
    next((copy / "wheels").glob("rich-*")).unlink()
    _sum_again(copy)
    failed = install(copy, prefix, "--mode", "venv")
    assert failed.returncode == 2
    assert "was not touched" in failed.stderr
    assert (prefix / "current").resolve() == before
    assert [path.name for path in (prefix / "versions").iterdir()] == [before.name]


@pytest.mark.parametrize(
    ("change", "options", "variables", "says"),
    [
        (("python=3.", "python=2."), [], {}, "made for Python 2."),
        (("machine=", "machine=vax"), [], {}, "for vax"),
        (None, ["--mode", "docker"], {}, "holds no images"),
        (None, ["--mode", "balloon"], {}, "neither docker nor venv"),
        (None, ["--nonsense"], {}, "no option --nonsense"),
        (None, ["--mode"], {}, "needs a value"),
        (None, ["--back"], {}, "no version before"),
    ],
)
def test_what_the_installer_refuses(
    copy: Path,
    tmp_path: Path,
    change: tuple[str, str] | None,
    options: list[str],
    variables: dict[str, str],
    says: str,
) -> None:
    if change is not None:
        text = (copy / "BUNDLE").read_text().replace(*change)
        rewrite(copy / "BUNDLE", text.encode())
        _sum_again(copy)
    refused = install(copy, tmp_path / "opt", *options, **variables)
    assert refused.returncode == 2, refused.stdout
    assert says in refused.stderr
    assert "Fix:" in refused.stderr
    assert not (tmp_path / "opt" / "current").exists()


# --- containers, with a docker that notes what it is asked


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a docker first on PATH; return where it notes its commands."""
    notes, folder = tmp_path / "docker.log", tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(
        "#!/bin/sh\n"
        f'echo "$*" >> {notes}\n'
        'case "$1 $2" in\n'
        '    "image inspect") [ "$3" != missing:1 ] || { echo "no such image" >&2; exit 1; } ;;\n'
        '    "save --output") echo an image > "$3" ;;\n'
        "esac\n"
    )
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return notes


def _in_containers(tmp_path: Path, name: str, version: str) -> Path:
    made = make(
        tmp_path / f"{name}.tar", "--without", "wheels", "--image", f"shotline:{version}",
        "--image", "redis:7-alpine", "--image", "postgres:17-alpine",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return unpack(tmp_path / f"{name}.tar", tmp_path / name)


def test_containers_are_installed_upgraded_and_taken_back(tmp_path: Path, docker: Path) -> None:
    old, new = (_in_containers(tmp_path, name, name) for name in ("1.0", "2.0"))
    assert "save --output" in docker.read_text()
    prefix = tmp_path / "opt"
    first = install(old, prefix)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "load --input" in docker.read_text()
    assert "docker compose up --detach" in first.stdout
    secrets = (prefix / "deploy/secrets/postgres_password").read_text()
    env = prefix / ".env"
    assert "SHOTLINE_IMAGE=shotline:1.0\n" in env.read_text()
    env.write_text(env.read_text().replace("COMPOSE_PROFILES=cpu", "COMPOSE_PROFILES=gpu"))

    upgraded = install(new, prefix)
    assert upgraded.returncode == 0, upgraded.stderr
    assert "shotline:1.0, stays" in upgraded.stdout
    assert "SHOTLINE_IMAGE=shotline:2.0\n" in env.read_text()
    assert "COMPOSE_PROFILES=gpu" in env.read_text()
    assert (prefix / "deploy/secrets/postgres_password").read_text() == secrets

    assert install(new, prefix).returncode == 0  # once more changes nothing
    back = install(new, prefix, "--back")
    assert back.returncode == 0, back.stderr
    assert "SHOTLINE_IMAGE=shotline:1.0\n" in env.read_text()
    assert "COMPOSE_PROFILES=gpu" in env.read_text()
    forth = install(new, prefix, "--back")
    assert forth.returncode == 0
    assert "SHOTLINE_IMAGE=shotline:2.0\n" in env.read_text()


def test_an_image_that_is_not_here(tmp_path: Path, docker: Path) -> None:
    refused = make(tmp_path / "b.tar", "--without", "wheels", "--image", "missing:1")
    assert refused.exit_code == 2
    assert "'missing:1': no such image" in refused.stderr.replace("\n", " ")
    assert not (tmp_path / "b.tar").exists()


def test_the_images_of_the_compose_file_are_the_default(tmp_path: Path, docker: Path) -> None:
    made = make(tmp_path / "b.tar", "--without", "wheels", environ={"SHOTLINE_IMAGE": "mine:3"})
    assert made.exit_code == 0, made.output
    saved = next(line for line in docker.read_text().splitlines() if line.startswith("save"))
    assert set(saved.split()[3:]) == {"mine:3", "redis:7-alpine", "postgres:17-alpine"}
    facts = (unpack(tmp_path / "b.tar", tmp_path / "u") / "BUNDLE").read_text()
    assert "image=mine:3\n" in facts
