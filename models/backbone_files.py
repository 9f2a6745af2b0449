"""The files of a backbone that lies in a folder. No torch here: they are recognised without it."""

import hashlib
from pathlib import Path

from models.errors import BackboneUnavailable

# The backbone that ships with Shotline, under a name that means the same on every machine.
STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / "starter"
CONFIG_NAME = "open_clip_config.json"
LOCAL = "local-dir:"

_READ = {".json", ".safetensors", ".bin", ".pt", ".pth", ".txt"}


def local_folder(source: str) -> Path | None:
    """Return the folder that `source` names; `None` where it names no folder."""
    if source == STARTER:
        return STARTER_FOLDER
    return Path(source.removeprefix(LOCAL)) if source.startswith(LOCAL) else None


def content_digest(folder: Path) -> str:
    """Return `sha256:` over the names and contents of the files that open_clip may read there.

    Raises:
        BackboneUnavailable: the folder cannot be read.
    """
    hasher = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in _READ:
                with path.open("rb") as file:
                    hasher.update(f"{path.name} ".encode())
                    hasher.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise BackboneUnavailable(
            f"The backbone's folder {folder} cannot be read: {error.strerror}.",
            fix="Check the path, and let this account read it.",
            field="backbone",
        ) from error
    return "sha256:" + hasher.hexdigest()
