"""Wheels of the running environment, in exactly the versions that run here."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from app.maintenance.box_files import FILES, PACKED, ROOT, box_file
from models.errors import BadInput

# What the container image has; each where all its packages are installed here.
_EXTRAS = ("onnx", "openvino", "parquet", "postgres")
_PACKAGES = ("app", "models", "worker")
_LEAVE_OUT = "or leave them out with --without wheels."
# Of an installed wheel, not of one that is to be installed.
_NOT_PACKED = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json"}


def collect_wheels(given: Path | None, folder: Path) -> str:
    """Put Shotline's own wheel and all that it needs into `folder`, and nothing else.

    Args:
        given: a folder with the wheels; None has pip get those of this environment.
        folder: made here.

    Returns:
        A requirements file with the version and the checksum of each.

    Raises:
        BadInput: one is missing, or pip cannot get it.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        pool = Path(temporary)
        if given is None:
            _download(pool)
        else:
            _link(given, pool)
        own_wheel(pool)
        chosen = _resolve(pool)
        folder.mkdir()
        for entry in chosen:
            path = pool / entry["download_info"]["url"].rsplit("/", 1)[1].replace("%2B", "+")
            shutil.move(path, folder / path.name)
    return "".join(sorted(_requirement(entry) for entry in chosen))


def environment() -> dict[str, str]:
    """Return the version of Shotline and of all that it needs here, by name.

    Raises:
        BadInput: something that it needs is not installed.
    """
    found: dict[str, str] = {}
    waiting = [(Requirement("shotline"), "")]
    waiting[0][0].extras = set(extras())
    seen: set[tuple[str, str]] = set()
    while waiting:
        needed, _ = waiting.pop()
        name = canonicalize_name(needed.name)
        there = _distribution(name)
        found[name] = there.version
        for extra in ("", *sorted(needed.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            waiting += [(one, extra) for one in _requires(there, extra)]
    return dict(sorted(found.items()))


def extras() -> list[str]:
    """Return the extras of which everything is installed here."""
    own = distribution("shotline")
    return [name for name in _EXTRAS if all(map(_is_installed, _requires(own, name, only=True)))]


def own_wheel(folder: Path) -> Path:
    """Write Shotline's own wheel, of the code that runs here, into `folder`.

    There is no index to get it from, and no need for a build backend: it is packed anew from the
    packages and the metadata that are installed.
    """
    own = distribution("shotline")
    path = folder / f"shotline-{own.version}-py3-none-any.whl"
    info = f"shotline-{own.version}.dist-info"
    records = []
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in (*_code(), *_metadata(own, info)):
            packs = zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
            wheel.writestr(name, data, packs)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            records.append(f"{name},sha256={digest},{len(data)}\n")
        wheel.writestr(f"{info}/RECORD", "".join([*records, f"{info}/RECORD,,\n"]))
    return path


def _code() -> Iterator[tuple[str, bytes]]:
    for package in _PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            name = str(path.relative_to(ROOT))
            if path.is_file() and "__pycache__" not in path.parts and not name.startswith(PACKED):
                yield name, path.read_bytes()
    for name in FILES:
        yield f"{PACKED}/{name}", box_file(name).read_bytes()


def _metadata(own: Distribution, info: str) -> Iterator[tuple[str, bytes]]:
    for file in own.files or []:
        inside = file.parts[0].endswith(".dist-info")
        if inside and file.name not in _NOT_PACKED and file.name != "WHEEL":
            yield "/".join([info, *file.parts[1:]]), file.read_binary()
    text = "Wheel-Version: 1.0\nGenerator: shotline\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    yield f"{info}/WHEEL", text.encode()


def _requires(there: Distribution, extra: str, *, only: bool = False) -> list[Requirement]:
    """Return what a package needs; with `only` just what `extra` adds."""
    found = []
    for text in there.requires or []:
        needed = Requirement(text)
        if needed.marker is None:
            wanted = not extra
        else:
            plain = needed.marker.evaluate({"extra": ""})
            wanted = needed.marker.evaluate({"extra": extra}) and not (extra and plain)
        if wanted and not (only and not extra):
            found.append(needed)
    return found


def _is_installed(needed: Requirement) -> bool:
    try:
        distribution(needed.name)
    except PackageNotFoundError:
        return False
    return True


def _distribution(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise BadInput(
            f"The package {name!r}, which Shotline needs, is not installed here.",
            fix="Install Shotline with all it needs; `shotline doctor` says what is missing.",
            field="wheels",
        ) from error


def _download(pool: Path) -> None:
    """Have pip get the wheel of each package in the version that is installed here."""
    pins = [f"{name}=={found}\n" for name, found in environment().items() if name != "shotline"]
    (pool / "pins.txt").write_text("".join(pins), encoding="utf-8")
    got = _pip(
        "wheel", "--no-deps", "--wheel-dir", str(pool), "--requirement", str(pool / "pins.txt"),
        isolated=False,
    )  # fmt: skip
    if got.returncode != 0:
        raise BadInput(
            f"pip could not get the wheels: {_why(got.stderr)}",
            fix="Make the bundle where pip reaches its index, give a folder with --wheels,"
            f" {_LEAVE_OUT}",
            field="wheels",
        )


def _link(given: Path, pool: Path) -> None:
    found = sorted(given.glob("*.whl")) if given.is_dir() else []
    if not found:
        raise BadInput(
            f"{given} holds no wheels.",
            fix="Give a folder of .whl files, such as `pip wheel` writes.",
            field="wheels",
        )
    for path in found:
        name, _, _, _ = parse_wheel_filename(path.name)
        if name == "shotline":  # that of the code that runs here is taken
            continue
        try:
            os.link(path, pool / path.name)
        except OSError:  # on another disk
            shutil.copy(path, pool)


def _resolve(pool: Path) -> list[dict[str, Any]]:
    """Return what pip would install from these wheels alone, on a machine such as this."""
    report = pool / "report.json"
    wanted = f"shotline[{','.join(extras())}]==" + distribution("shotline").version
    tried = _pip(
        "install", "--dry-run", "--ignore-installed", "--no-index", "--find-links", str(pool),
        "--report", str(report), wanted, isolated=True,
    )  # fmt: skip
    if tried.returncode != 0:
        raise BadInput(
            f"Shotline cannot be installed from these wheels alone: {_why(tried.stderr)}",
            fix=f"Add what is missing, leave --wheels out so that pip gets them all, {_LEAVE_OUT}",
            field="wheels",
        )
    entries: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return entries


def _pip(*arguments: str, isolated: bool) -> subprocess.CompletedProcess[str]:
    environ = dict(os.environ)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    if isolated:  # nothing that configures pip here may help out
        environ = {name: value for name, value in environ.items() if not name.startswith("PIP_")}
        environ["PIP_CONFIG_FILE"] = os.devnull
        command.append("--isolated")
    return subprocess.run(  # noqa: S603 - fixed commands
        [*command, *arguments], check=False, capture_output=True, text=True, env=environ
    )


def _why(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if "ERROR" in line] or said.splitlines()
    return " ".join(line.removeprefix("ERROR: ") for line in lines[:2])[:500] or "it said nothing."


def _requirement(entry: dict[str, Any]) -> str:
    name, found = entry["metadata"]["name"], entry["metadata"]["version"]
    digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{name}=={found} --hash=sha256:{digest}\n"
