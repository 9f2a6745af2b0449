"""One archive with all that a box without a network needs, to install Shotline or to upgrade it.

What belongs into it and is not here is an error, unless the caller leaves that part out: nobody
should find out beside the line.
"""

import gzip
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, NamedTuple, cast

import yaml

from app.maintenance.backbones import WEIGHTS
from app.maintenance.box_files import FILES, box_file
from app.maintenance.wheels import collect_wheels
from models.backbone_files import CONFIG_NAME, STARTER, local_folder
from models.errors import BadInput, file_errors
from models.files import file_sha256, flush_to_disk

PARTS = ("images", "wheels", "backbones")
Told = Callable[[str], None]

_README = """\
Shotline {version}, for a box without a network; made on {made}.

    ./install.sh                    install or upgrade, in containers where there is Docker
    ./install.sh --mode venv        in a virtual environment (Python {python})
    ./install.sh --back             the version before, again

docs/airgap.md says what each does. SHA256SUMS has the checksum of every file; install.sh compares
them first.
"""


@dataclass(frozen=True)
class Wanted:
    """What goes into a bundle.

    Attributes:
        images: container images; by default those that the compose file names.
        wheels: a folder of wheels; by default pip gets those of the running environment.
        backbones: folders or checkpoint files; by default what is configured.
        without: parts that are left out.
    """

    images: Sequence[str] = ()
    wheels: Path | None = None
    backbones: Sequence[Path] = ()
    without: frozenset[str] = frozenset()


class Bundle(NamedTuple):
    """A bundle that was written."""

    path: Path
    size: int
    sha256: str
    parts: dict[str, int]


def make_bundle(out: Path, wanted: Wanted, configured: str, told: Told) -> Bundle:
    """Write the bundle to `out`, whole or not at all.

    Args:
        out: `.tar`, `.tar.gz` or `.tgz`; its folder exists.
        wanted: what goes into it.
        configured: the backbone that the service uses.
        told: called with what is begun.

    Raises:
        BadInput: something that belongs into it is not here.
        StorageFull, StorageUnusable: it cannot be written.
    """
    root = f"shotline-{version('shotline')}"
    with (
        file_errors(out, "written"),
        tempfile.TemporaryDirectory(prefix=".bundle-", dir=out.parent) as folder,
    ):
        box = Path(folder) / root
        parts = _fill(box, wanted, configured, told)
        told("Writing the archive")
        archive = Path(folder) / out.name
        _pack(box, archive)
        digest = file_sha256(archive)
        flush_to_disk(archive)
        archive.replace(out)
        flush_to_disk(out.parent)
    return Bundle(out, out.stat().st_size, digest, parts)


def _fill(box: Path, wanted: Wanted, configured: str, told: Told) -> dict[str, int]:
    """Put everything into the folder; return the bytes of each part."""
    box.mkdir()
    for name in FILES:
        source = box_file(name)
        target = box / ("install.sh" if name.endswith("install.sh") else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    image = ""
    if "images" not in wanted.without:
        told("Saving the container images")
        image = _save_images(wanted.images, box / "images")
    if "wheels" not in wanted.without:
        told("Collecting wheels")
        requirements = collect_wheels(wanted.wheels, box / "wheels")
        (box / "requirements.txt").write_text(requirements, encoding="utf-8")
    if "backbones" not in wanted.without:
        told("Copying backbones")
        _copy_backbones(wanted.backbones, configured, box / "backbones")
    parts = {name: _size(box / name) for name in PARTS if (box / name).is_dir()}
    _describe(box, list(parts), image)
    told("Computing checksums")
    _write_checksums(box)
    return parts


def default_images() -> list[str]:
    """Return the images that the compose file names, ours first, as Compose would fill them in."""
    text = box_file("docker-compose.yml").read_text(encoding="utf-8")
    ours = os.environ.get("SHOTLINE_IMAGE")
    found: dict[str, None] = {}
    for service in yaml.safe_load(text)["services"].values():
        if "tls" in service.get("profiles", ()):  # for boxes that want it; see docs/security.md
            continue
        image = str(service["image"])
        if image.startswith("${"):
            image = ours or image.partition(":-")[2].rstrip("}")
        found[image] = None
    return list(found)


def _save_images(given: Sequence[str], folder: Path) -> str:
    """Save the images; return ours."""
    docker = shutil.which("docker")
    names = list(given) or default_images()
    leave_out = "or leave them out with --without images: the box then runs without containers."
    if docker is None:
        raise BadInput(
            "The container images cannot be saved: there is no docker here.",
            fix=f"Make the bundle where they were built, {leave_out}",
            field="without",
        )
    for name in names:
        there = _docker(docker, "image", "inspect", name)
        if there.returncode != 0:
            raise BadInput(
                f"Docker has no image {name!r}: {_last_line(there.stderr)}.",
                fix=f"Build or pull it, name others with --image, {leave_out}",
                field="image",
            )
    folder.mkdir()
    saved = _docker(docker, "save", "--output", str(folder / "images.tar"), *names)
    if saved.returncode != 0:
        raise BadInput(
            f"Docker could not save the images: {_last_line(saved.stderr)}.",
            fix=f"See its log and the disk, {leave_out}",
            field="image",
        )
    return next((name for name in names if "shotline" in name), names[0])


def _docker(docker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - fixed commands; names are arguments, not a shell's
        [docker, *arguments], check=False, capture_output=True, text=True
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1].rstrip(".")


def _copy_backbones(given: Sequence[Path], configured: str, folder: Path) -> None:
    paths = list(given) or _configured_paths(configured)
    for path in paths:
        target = folder / (path.stem if path.is_file() else path.resolve().name)
        if target.exists():
            raise BadInput(
                f"Two backbones are called {target.name!r}.",
                fix="Rename one of them.",
                field="backbone",
            )
        if path.is_file():
            target.mkdir(parents=True)
            shutil.copy(path, target)
        elif (path / CONFIG_NAME).is_file() and any((path / name).is_file() for name in WEIGHTS):
            shutil.copytree(path, target, ignore=shutil.ignore_patterns(".*"))
        else:
            raise BadInput(
                f"{path} is no backbone: neither a checkpoint file nor a folder with {CONFIG_NAME}"
                f" and {WEIGHTS[0]}.",
                fix="Give one that `shotline backbones list` shows.",
                field="backbone",
            )


def _configured_paths(configured: str) -> list[Path]:
    """Return where the configured backbone lies; nothing for the starter, which is in the wheel."""
    if configured == STARTER:
        return []
    folder = local_folder(configured)
    if folder is not None:
        return [folder]
    _, at, file = configured.partition("@")
    if at:
        return [Path(file)]
    raise BadInput(
        f"The configured backbone {configured!r} is no folder or file of this machine.",
        fix="Give its folder with --backbone, or leave it out with --without backbones.",
        field="backbone",
    )


def _describe(box: Path, parts: Sequence[str], image: str) -> None:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    python = ".".join(platform.python_version_tuple()[:2])
    facts = {
        "version": version("shotline"),
        "made": made,
        "python": python,
        "machine": platform.machine(),
        "image": image,
        "parts": " ".join(parts),
    }
    lines = "".join(f"{name}={value}\n" for name, value in facts.items())
    (box / "BUNDLE").write_text(lines, encoding="utf-8")
    readme = _README.format(version=facts["version"], made=made, python=python)
    (box / "README.txt").write_text(readme, encoding="utf-8")


def _write_checksums(box: Path) -> None:
    lines = []
    for path in sorted(path for path in box.rglob("*") if path.is_file()):
        lines.append(f"{file_sha256(path)}  {path.relative_to(box)}\n")
    (box / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def _pack(box: Path, archive: Path) -> None:
    with _opened(archive) as file, tarfile.open(fileobj=file, mode="w|") as tar:
        tar.add(box, arcname=box.name, filter=_of_nobody)


@contextmanager
def _opened(archive: Path) -> Iterator[IO[bytes]]:
    """Open the archive; wheels and weights hardly pack, so that it is fast rather than small."""
    if archive.suffix == ".tar":
        with archive.open("wb") as file:
            yield file
    else:
        with gzip.open(archive, "wb", compresslevel=1) as packed:
            yield cast("IO[bytes]", packed)


def _of_nobody(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Forget whose the files were here; keep what may be run."""
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
    return info


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
