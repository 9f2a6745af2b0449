"""Checkpoints: where a tuning stands, so that another process can go on from there bit for bit.

A tuning is one tuner run on all training images and, where there is no holdout, one per fold. A
`RunCheckpoint` is the state within a run; a `Checkpoint` adds the results of the runs before it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.chunks import Chunks
from models.errors import CheckpointMismatch, DamagedArtifact, file_errors
from models.files import read_metadata

FORMAT = "shotline-checkpoint/1"


class RunIdentity(NamedTuple):
    """A digest of each thing that decides how a run goes."""

    recipe: str
    backbone: str
    prompt_names: str
    images: str
    seed: str

    @classmethod
    def of(
        cls,
        recipe_digest: str,
        backbone_digest: str,
        prompt_names: list[str],
        features: Float[Tensor, "n dim"],
        labels: Int[Tensor, " n"],
        generator: torch.Generator,
    ) -> "RunIdentity":
        """Return the identity of a run on these images, before `generator` has drawn anything."""
        return cls(
            recipe=recipe_digest,
            backbone=backbone_digest,
            prompt_names=_sha256(json.dumps(prompt_names).encode()),
            images=_sha256(_bytes(features) + _bytes(labels)),
            seed=_sha256(_bytes(generator.get_state())),
        )


@dataclass(frozen=True)
class RunCheckpoint:
    """The state of a tuner at the end of an epoch.

    Attributes:
        identity: of the run.
        epoch: epochs done.
        step: gradient steps done.
        ctx: the context tokens.
        momentum: SGD's buffer for them.
        generator: state of the random generator.
        history: the epoch records so far, as plain values.
    """

    identity: RunIdentity
    epoch: int
    step: int
    ctx: Tensor
    momentum: Tensor
    generator: Tensor
    history: list[dict[str, Any]]

    def check(self, identity: RunIdentity) -> None:
        """Refuse to go on with another run.

        Raises:
            CheckpointMismatch: `identity` is not this checkpoint's.
        """
        names = [
            field.replace("_", " ")
            for field, mine, other in zip(identity._fields, self.identity, identity, strict=True)
            if mine != other
        ]
        if names:
            raise CheckpointMismatch(
                f"The checkpoint belongs to another run: it differs in {' and '.join(names)}.",
                fix="Use the checkpoint with the run that wrote it, or start without one.",
                field="checkpoint",
            )


@dataclass(frozen=True)
class Checkpoint:
    """The state of a whole tuning: the last epoch of every run so far.

    All but the last are finished; their context tokens are their results.

    Attributes:
        runs: what each has come to.
        chunks: the pieces that all of them were done in.
    """

    runs: tuple[RunCheckpoint, ...] = ()
    chunks: Chunks = field(default_factory=Chunks)

    def with_run(self, index: int, run: RunCheckpoint) -> "Checkpoint":
        """Return this checkpoint with run number `index` as its last."""
        return replace(self, runs=(*self.runs[:index], run))

    def run(self, index: int) -> RunCheckpoint | None:
        """Return where run number `index` stands, `None` when it has not begun."""
        return self.runs[index] if index < len(self.runs) else None

    def to_bytes(self) -> bytes:
        """Return the checkpoint as safetensors."""
        tensors: dict[str, Tensor] = {}
        headers = []
        for index, run in enumerate(self.runs):
            tensors[f"{index}.ctx"] = run.ctx.cpu().contiguous()
            tensors[f"{index}.momentum"] = run.momentum.cpu().contiguous()
            tensors[f"{index}.generator"] = run.generator
            headers.append(
                {
                    "identity": run.identity._asdict(),
                    "epoch": run.epoch,
                    "step": run.step,
                    "history": run.history,
                }
            )
        runs = json.dumps(headers)
        chunks = self.chunks.model_dump_json()
        metadata = {
            "format": FORMAT,
            "runs": runs,
            "chunks": chunks,
            "checksum": _checksum(runs + chunks, tensors),
        }
        return safetensors.torch.save(tensors, metadata=metadata)

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str = "The checkpoint") -> "Checkpoint":
        """Read what `to_bytes` wrote.

        Args:
            data: the whole file.
            name: what error messages call it.

        Raises:
            DamagedArtifact: the bytes are no checkpoint, or not a whole one.
        """
        metadata = read_metadata(data)
        if metadata.get("format") != FORMAT:
            raise DamagedArtifact(
                f"{name} is no checkpoint of this version ({len(data)} bytes).",
                fix="Name another file, or a new one to start from the beginning.",
                field="checkpoint",
            )
        try:
            tensors = safetensors.torch.load(data)
            # Older ones know the usual pieces alone.
            chunks = metadata.get("chunks", "")
            if metadata["checksum"] != _checksum(metadata["runs"] + chunks, tensors):
                raise ValueError
            runs = tuple(_read_runs(metadata["runs"], tensors))
            return cls(runs, Chunks.model_validate_json(chunks) if chunks else Chunks())
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DamagedArtifact(
                f"{name} is damaged ({len(data)} bytes): it is not what its checksum says.",
                fix="Delete it; the tuning then starts from the beginning.",
                field="checkpoint",
            ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file.

    Raises:
        DamagedArtifact: no checkpoint, or not a whole one.
        StorageUnusable: the file cannot be read.
    """
    with file_errors(path, "read"):
        data = path.read_bytes()
    return Checkpoint.from_bytes(data, name=f"The checkpoint {path}")


def _read_runs(runs: str, tensors: dict[str, Tensor]) -> Iterator[RunCheckpoint]:
    for index, header in enumerate(json.loads(runs)):
        header["identity"] = RunIdentity(**header["identity"])
        parts = {part: tensors[f"{index}.{part}"] for part in ("ctx", "momentum", "generator")}
        yield RunCheckpoint(**header | parts)


def _checksum(text: str, tensors: dict[str, Tensor]) -> str:
    hasher = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.numpy().tobytes())
    return hasher.hexdigest()


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().numpy().tobytes()
