"""Backbones from a USB stick: checked, loaded once, and put where the service finds them.

A backbone is a folder in open_clip's local-dir form, or one checkpoint file of an architecture that
open_clip knows. Nothing of it is unpickled: `.pt` files are read by torch with `weights_only`.
"""

import hashlib
import json
import re
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError, safe_open

from app.core.disk import shown_bytes, space
from app.core.errors import Duplicate
from models.backbone_files import CONFIG_NAME, LOCAL, content_digest
from models.errors import BackboneUnavailable, BadInput, StorageFull, file_errors
from models.files import flush_folder, flush_to_disk
from models.progress import Progress, no_progress

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_CHECKPOINTS = {".safetensors", ".pt", ".pth", ".bin"}
# Beside config and weights what a tokenizer may need; all else on a stick stays there.
_TEXTS = {".json", ".txt"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"(sha256:)?[0-9a-f]{64}")
# Has no suffix of those that `content_digest` reads.
_NOTE = "IMPORTED"
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Imported:
    """A backbone that was taken over.

    Attributes:
        name: of its folder.
        source: what SHOTLINE_BACKBONE_SOURCE has to be.
        digest: what versions tuned on it are bound to.
        sha256: of the file of weights.
        size: bytes of all its files.
        imported_at: the time, in UTC.
    """

    name: str
    source: str
    digest: str
    sha256: str
    size: int
    imported_at: str

    @property
    def line(self) -> str:
        """The line for `.env`."""
        return f"SHOTLINE_BACKBONE_SOURCE={shlex.quote(self.source)}"


@dataclass(frozen=True)
class Found:
    """A backbone that is there; `imported` is None for one that was copied by hand."""

    name: str
    source: str | None
    imported: Imported | None


def import_backbone(
    stick: Path,
    folder: Path,
    *,
    name: str | None = None,
    sha256: str | None = None,
    architecture: str | None = None,
    progress: Progress = no_progress,
) -> Imported:
    """Copy the backbone at `stick` into `folder`, whole or not at all.

    Args:
        stick: a folder in local-dir form, or a checkpoint file.
        folder: of all backbones; made where it is missing.
        name: of its folder there; by default the stick's own.
        sha256: what the weights, or all files together, have to have.
        architecture: of a checkpoint file; by default its name, where open_clip knows that.
        progress: told the bytes that are copied.

    Raises:
        BadInput: a name, digest or path that cannot be used, or another digest.
        Duplicate: the name is taken.
        BackboneUnavailable: damaged, without a text tower, or of a kind that cannot be tuned.
        StorageFull, StorageUnusable: it cannot be copied.
    """
    expected = _expected(sha256)
    files = _files_of(stick)
    weights = next(target for target in files if Path(target).suffix in _CHECKPOINTS)
    if stick.is_file():
        architecture = _architecture(stick, architecture)
    name = _checked_name(name or (stick.stem if stick.is_file() else stick.resolve().name))
    final = folder / name
    if final.exists():
        raise _taken(final)
    with _incoming(folder, sum(path.stat().st_size for path in files.values())) as temporary:
        found = _copy(files, temporary, progress)
        _check_digest(stick, expected, found[weights], content_digest(temporary))
        _check_weights(temporary / weights, stick)
        digest = _load(_source(temporary, weights, architecture), stick)
        made = Imported(
            name,
            _source(final.absolute(), weights, architecture),
            digest,
            found[weights],
            sum(path.stat().st_size for path in temporary.iterdir()),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with file_errors(final, "written"):
            (temporary / _NOTE).write_text(json.dumps(asdict(made), indent=1), encoding="utf-8")
            flush_folder(temporary)
            try:
                temporary.rename(final)
            except OSError as error:
                if final.exists():  # another import was faster
                    raise _taken(final) from error
                raise
            flush_to_disk(folder)
    return made


def list_backbones(folder: Path) -> list[Found]:
    """Return what is in the folder of backbones, by name."""
    found = []
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in paths:
        if not path.is_dir() or path.name.startswith("."):
            continue
        imported = None
        with suppress(OSError, ValueError, TypeError):
            imported = Imported(**json.loads((path / _NOTE).read_text(encoding="utf-8")))
        by_hand = f"{LOCAL}{path.absolute()}" if (path / CONFIG_NAME).is_file() else None
        found.append(Found(path.name, imported.source if imported else by_hand, imported))
    return found


def _expected(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    text = sha256.strip().lower()
    if not _SHA256.fullmatch(text):
        raise BadInput(
            f"The digest {sha256[:80]!r} is no sha256 in hexadecimal.",
            fix="Give the 64 characters that `sha256sum` prints for the weights.",
            field="sha256",
        )
    return text.removeprefix("sha256:")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise BadInput(
            f"{name[:120]!r} cannot be the name of a backbone.",
            fix="Give one with --name, of letters, digits, '.', '_' and '-', without slashes.",
            field="name",
        )
    return name


def _taken(path: Path) -> Duplicate:
    return Duplicate(
        f"A backbone called {path.name!r} is there already: {path}.",
        fix="Choose another --name; remove that folder if nothing uses it any more.",
        field="name",
    )


def _files_of(stick: Path) -> dict[str, Path]:
    """Return what has to be copied, by the name that it gets."""
    if stick.is_file():
        if stick.suffix not in _CHECKPOINTS:
            raise BadInput(
                f"{stick} is no checkpoint: its name ends with {stick.suffix!r}.",
                fix="Give a .safetensors, .pt, .pth or .bin file, or a folder in open_clip's"
                " local-dir form.",
                field="file",
            )
        return {stick.name: stick}
    if not stick.is_dir():
        raise BadInput(
            f"{stick} does not exist.", fix="Check the path; is the stick mounted?", field="file"
        )
    with file_errors(stick, "read"):
        there = [path for path in stick.iterdir() if path.is_file()]
    weights = [name for name in WEIGHTS if stick / name in there]
    if stick / CONFIG_NAME not in there or not weights:
        raise BadInput(
            f"The folder {stick} is not in open_clip's local-dir form: it has to hold"
            f" {CONFIG_NAME} and {WEIGHTS[0]}.",
            fix="Give the folder of those two files, or one checkpoint file with --architecture.",
            field="file",
        )
    texts = {path.name: path for path in there if path.suffix in _TEXTS}
    return texts | {weights[0]: stick / weights[0]}


def _architecture(file: Path, given: str | None) -> str:
    import open_clip  # noqa: PLC0415 - torch

    name = given or file.stem
    if name not in open_clip.list_models():
        asked = f"open_clip knows no architecture {name!r}." if given else (
            f"Of which architecture {file.name} is cannot be told from its name."
        )  # fmt: skip
        raise BadInput(
            asked,
            fix="Name it with --architecture, for example ViT-B-32.",
            field="architecture",
        )
    return name


@contextmanager
def _incoming(folder: Path, size: int) -> Iterator[Path]:
    """Make a temporary folder beside the others with room for `size` bytes; remove it at the end.

    What an import that was killed left there is removed by the next one.
    """
    with file_errors(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".incoming-*"):
            shutil.rmtree(left, ignore_errors=True)
        there = space("backbones", folder)
        if there.free < size:
            raise StorageFull(
                f"The backbone has {shown_bytes(size)}; {folder} has {shown_bytes(there.free)}"
                " free.",
                fix="Free space there.",
            )
        temporary = folder / f".incoming-{secrets.token_hex(8)}"
        temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy(files: Mapping[str, Path], temporary: Path, progress: Progress) -> dict[str, str]:
    """Copy the files; return the sha256 of each as it was read from the stick."""
    total, done, found = sum(path.stat().st_size for path in files.values()), 0, {}
    for name, path in files.items():
        digest = hashlib.sha256()
        with (
            file_errors(path, "read"),
            path.open("rb") as source,
            (temporary / name).open("wb") as target,
        ):
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
                done += len(chunk)
                progress(done, total)
        found[name] = digest.hexdigest()
    return found


def _check_digest(stick: Path, expected: str | None, weights: str, whole: str) -> None:
    if expected is not None and expected not in (weights, whole.removeprefix("sha256:")):
        raise BadInput(
            f"{stick} is not what was expected: the sha256 of its weights is {weights}, not"
            f" {expected}.",
            fix="Copy it onto the stick again; check where the digest comes from.",
            field="sha256",
        )


def _check_weights(path: Path, stick: Path) -> None:
    """Say what is wrong in a sentence where open_clip would list hundreds of tensors."""
    if path.suffix != ".safetensors":
        return
    try:
        with safe_open(path, "numpy") as tensors:
            names = list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise BackboneUnavailable(
            f"{stick} is damaged or cut short: {error}.",
            fix="Copy it again, and compare its sha256 with --sha256.",
            field="file",
        ) from error
    if not any("token_embedding" in name for name in names):
        raise BackboneUnavailable(
            f"{stick} has no text tower: none of its {len(names)} tensors embeds tokens.",
            fix="Give the checkpoint of a whole CLIP, not of an image encoder alone.",
            field="file",
        )


def _source(folder: Path, weights: str, architecture: str | None) -> str:
    return f"{LOCAL}{folder}" if architecture is None else f"{architecture}@{folder / weights}"


def _load(source: str, stick: Path) -> str:
    """Load it once and encode a text; return its digest."""
    from models.backbone_source import load_backbone  # noqa: PLC0415 - torch

    try:
        return load_backbone(source, device="cpu", offline=True).digest
    except BackboneUnavailable as error:
        reason = error.problem if len(error.problem) < 400 else f"{error.problem[:400]} …"
        raise BackboneUnavailable(
            f"{stick} cannot be used: {reason}", fix=error.fix, field="file"
        ) from error
