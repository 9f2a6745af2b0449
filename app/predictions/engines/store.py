"""Converted image encoders, kept from one start of the gateway to the next.

A folder for each backbone, machine and set of libraries: the files of the engine that was chosen,
what PyTorch says of the probe's pictures, and last the choice itself. All is written under a
temporary name and then renamed: what is there is whole.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from app.predictions.engines.agreement import Probe
from models.files import file_sha256, flush_folder
from models.imaging import PixelSpec

log = structlog.get_logger(__name__)

_CHOICE, _PROBE = "choice.json", "probe.npz"
# Of other backbones, versions or settings; a converted encoder is as large as its weights.
_KEPT_FOLDERS = 4


class Trial(BaseModel):
    """How an engine did.

    Attributes:
        engine: its name.
        images_per_second: by the size of the batch; empty where it was not measured.
        least_cosine: the smallest cosine between its features and PyTorch's.
        refused: why it cannot be taken.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    images_per_second: dict[int, float] = {}
    least_cosine: float | None = None
    refused: str | None = None

    def __str__(self) -> str:
        if self.refused is not None:
            return f"{self.engine} refused: {self.refused}"
        if not self.images_per_second:
            return self.engine
        speeds = ", ".join(
            f"{speed:.0f} in batches of {batch}" for batch, speed in self.images_per_second.items()
        )
        return f"{self.engine} {speeds} images/s"


class Choice(BaseModel):
    """Which engine was chosen for a backbone on this machine, and among which."""

    model_config = ConfigDict(frozen=True)

    engine: str
    source: str
    digest: str
    pixels: PixelSpec
    trials: list[Trial]
    files: dict[str, str] = {}

    def __str__(self) -> str:
        chosen = [trial for trial in self.trials if trial.engine == self.engine]
        others = [trial for trial in self.trials if trial.engine != self.engine]
        return "; ".join(str(trial) for trial in [*chosen, *others])


class EngineStore:
    """The folders below `root`, by key."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, key: str) -> Path:
        """Return where the files of `key` are, or would be."""
        return self._root / key

    def read(self, key: str) -> tuple[Choice, Probe] | None:
        """Return what was chosen; `None` where nothing was, or where a file is not as written."""
        folder = self.folder(key)
        if not folder.exists():
            return None
        try:
            choice = Choice.model_validate_json((folder / _CHOICE).read_bytes())
            check_files(folder, choice.files)
            with np.load(folder / _PROBE, allow_pickle=False) as arrays:
                probe = Probe(arrays["features"], arrays["texts"])
        except (OSError, ValueError, KeyError, ValidationError) as error:
            log.warning("engine_cache_damaged", key=key, error=str(error))
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):
            os.utime(folder)  # by which the oldest are found
        return choice, probe

    @contextmanager
    def preparing(self) -> Iterator[Path]:
        """Yield a folder to convert in; it is gone afterwards unless it was kept."""
        self._root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".", dir=self._root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, key: str, prepared: Path, choice: Choice, probe: Probe) -> Path:
        """Keep a prepared folder under `key`, without the files of what was not chosen.

        Returns:
            Where the files are now: where another process was first, theirs stays.
        """
        for path in prepared.iterdir():
            if path.name != choice.engine:
                shutil.rmtree(path)
        np.savez(prepared / _PROBE, features=probe.features, texts=probe.texts)
        files = checksums(prepared)
        written = choice.model_copy(update={"files": files}).model_dump_json(indent=1)
        (prepared / _CHOICE).write_text(written, encoding="utf-8")
        flush_folder(prepared)
        self._drop_oldest()
        try:
            return prepared.rename(self.folder(key))
        except OSError:
            return prepared

    def _drop_oldest(self) -> None:
        with suppress(OSError):
            folders = [path for path in self._root.iterdir() if not path.name.startswith(".")]
            folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for folder in folders[_KEPT_FOLDERS - 1 :]:
                shutil.rmtree(folder, ignore_errors=True)


def checksums(folder: Path) -> dict[str, str]:
    """Return the hexadecimal SHA-256 of every file below a folder, by its path there."""
    return {str(path.relative_to(folder)): file_sha256(path) for path in _files(folder)}


def check_files(folder: Path, known: Mapping[str, str]) -> None:
    """Raise `ValueError`, or `OSError`, where a file is not the one whose checksum is known."""
    if any(file_sha256(folder / name) != checksum for name, checksum in known.items()):
        raise ValueError("a file is not what its checksum says")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
