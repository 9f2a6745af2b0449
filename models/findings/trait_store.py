"""Where what was measured of images is kept, so that each is looked at once."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from pydantic import ValidationError

from models.errors import file_errors
from models.files import write_atomic
from models.findings.traits import TRAITS_VERSION, Traits


@runtime_checkable
class TraitStore(Protocol):
    """Keeps traits by the sha256 of the image's bytes."""

    def get(self, sha256: str) -> Traits | None:
        """Return the traits, or `None` where they have not been measured."""

    def put(self, sha256: str, traits: Traits) -> None:
        """Keep the traits."""


class MemoryTraitStore:
    """Keeps traits for as long as the process lives."""

    def __init__(self) -> None:
        self._traits: dict[str, Traits] = {}

    def get(self, sha256: str) -> Traits | None:
        """Return the traits, or `None` where they have not been measured."""
        return self._traits.get(sha256)

    def put(self, sha256: str, traits: Traits) -> None:
        """Keep the traits."""
        self._traits[sha256] = traits


class FolderTraitStore:
    """Keeps the traits of each image in a file of its own; safe for several processes.

    May stand in the folder of a `FolderFeatureStore`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / f"traits-{TRAITS_VERSION}"

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / f"{sha256}.json"

    def get(self, sha256: str) -> Traits | None:
        """Return the traits, or `None` where they are not there or their file is damaged.

        Raises:
            StorageUnusable: the file, or a folder above it, cannot be read.
        """
        path = self._path(sha256)
        with file_errors(path, "read"):
            try:
                return Traits.model_validate_json(path.read_bytes())
            except (FileNotFoundError, ValidationError):
                return None

    def put(self, sha256: str, traits: Traits) -> None:
        """Keep the traits.

        Raises:
            StorageFull: no space is left.
            StorageUnusable: the folder cannot be written to.
        """
        write_atomic(self._path(sha256), traits.model_dump_json().encode())
