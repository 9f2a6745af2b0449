"""A version as predictions need it."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from app.core.errors import Damaged, NotFound
from app.core.storage import Storage
from app.predictions.embeddings import Head
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.repository import Version
from models.artifact import Artifact
from models.classes import Role
from models.decision import Label
from models.errors import ArtifactMismatch
from models.imaging import View
from models.trust.judge import Judge

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True, slots=True)
class ResidentModel:
    """A version in memory: its embeddings are in the store, the rest is a few kilobytes.

    Attributes:
        names: of the classes.
        roles: of the classes; few models have others than another one.
        judge: its decision rule; None where it was tuned before there were any.
        head: its rows in the store; None where it is of another backbone than the gateway's.
    """

    id: UUID
    project_id: UUID
    number: int
    digest: str
    backbone: str
    backbone_digest: str
    names: tuple[str, ...]
    roles: tuple[Role, ...]
    view: View
    judge: Judge | None
    head: Head | None

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes; put together when they are asked for, since half a kilobyte is much here."""
        return tuple(map(Label, self.names, self.roles))

    def check_encoder(self, encoder: ImageEncoder) -> Head:
        """Return the head for the features of `encoder`.

        Raises:
            ArtifactMismatch: the gateway's backbone is not this version's.
        """
        if self.head is None or self.backbone_digest != encoder.digest:
            raise ArtifactMismatch(
                f"Version {self.number} was tuned for the backbone {self.backbone!r}"
                f" ({self.backbone_digest[:19]}…); this gateway has {encoder.source!r}"
                f" ({encoder.digest[:19]}…).",
                fix="Set SHOTLINE_BACKBONE_SOURCE to the one it was tuned for, or tune again.",
                field="backbone",
            )
        return self.head


def read_artifact_of(version: Version, storage: Storage) -> Artifact:
    """Read a version's artifact, verified.

    Raises:
        Damaged, DamagedArtifact: missing, or not as it was written.
        ArtifactMismatch: of another format.
    """
    name = f"The artifact of version {version.number}"
    try:
        data = storage.read(version.artifact_sha256)
    except (NotFound, OSError) as error:
        raise Damaged(
            f"{name} cannot be read from storage ({type(error).__name__}).",
            fix="Check the disk, and restore the blobs from a backup.",
        ) from error
    return Artifact.from_bytes(data, name=name)


def resident(version: Version, artifact: Artifact, head: Head | None) -> ResidentModel:
    """Return what stays of an artifact in memory."""
    header = artifact.header
    return ResidentModel(
        id=version.id,
        project_id=version.project_id,
        number=version.number,
        digest=artifact.digest,
        backbone=_shared(header.backbone),
        backbone_digest=_shared(header.backbone_digest),
        names=_shared(tuple(spec.name for spec in header.classes)),
        roles=_shared(tuple(spec.role for spec in header.classes)),
        view=_shared(header.view),
        judge=artifact.judge(),
        head=head,
    )


def _shared(value: Value) -> Value:
    """Return the first value that was equal to this one: models have most of them in common."""
    found: Value = _first(value)
    return found


@lru_cache(maxsize=10_000)
def _first(value: Hashable) -> Any:
    return value
