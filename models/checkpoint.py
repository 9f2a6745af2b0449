"""Checkpoints: where a tuning stands, so that another process can go on from there bit for bit.

A tuning is one tuner run on all training images and, where there is no holdout, one per fold. A
`RunCheckpoint` is the state within a run; a `Checkpoint` adds the results of the runs before it.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.errors import CheckpointMismatch, DamagedArtifact

FORMAT = "shotline-checkpoint/1"


@dataclass(frozen=True)
class RunCheckpoint:
    """The state of a tuner at the end of an epoch.

    Attributes:
        identity: digest of everything that the rest of the run depends on, see `run_identity`.
        epoch: epochs done.
        step: gradient steps done.
        ctx: the context tokens.
        momentum: SGD's buffer for them.
        generator: state of the random generator.
        history: the epoch records so far, as plain values.
    """

    identity: str
    epoch: int
    step: int
    ctx: Tensor
    momentum: Tensor
    generator: Tensor
    history: list[dict[str, Any]]

    def check(self, identity: str) -> None:
        """Refuse to go on with another run.

        Raises:
            CheckpointMismatch: `identity` is not this checkpoint's.
        """
        if self.identity != identity:
            raise CheckpointMismatch(
                f"The checkpoint belongs to the run {self.identity[:19]}…, this is"
                f" {identity[:19]}…: the recipe, the images, the seed or the backbone differ.",
                fix="Use the checkpoint with the run that wrote it, or start without one.",
            )


@dataclass(frozen=True)
class Checkpoint:
    """The state of a whole tuning: the last epoch of every run so far.

    All but the last are finished; their context tokens are their results.
    """

    runs: tuple[RunCheckpoint, ...] = ()

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
                    "identity": run.identity,
                    "epoch": run.epoch,
                    "step": run.step,
                    "history": run.history,
                }
            )
        runs = json.dumps(headers)
        metadata = {"format": FORMAT, "runs": runs, "checksum": _checksum(runs, tensors)}
        return safetensors.torch.save(tensors, metadata=metadata)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Checkpoint":
        """Read what `to_bytes` wrote.

        Raises:
            DamagedArtifact: the bytes are not a whole checkpoint.
        """
        try:
            metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            if metadata["format"] != FORMAT:
                raise ValueError(f"its format is {metadata['format']!r}")
            tensors = safetensors.torch.load(data)
            if metadata["checksum"] != _checksum(metadata["runs"], tensors):
                raise ValueError("its content is not what its checksum says")
            parts = ("ctx", "momentum", "generator")
            return cls(
                tuple(
                    RunCheckpoint(**header | {part: tensors[f"{index}.{part}"] for part in parts})
                    for index, header in enumerate(json.loads(metadata["runs"]))
                )
            )
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
            raise DamagedArtifact(
                f"The checkpoint of {len(data)} bytes is damaged: {error}.",
                fix="Delete it; the tuning then starts from the beginning.",
            ) from error


def _checksum(runs: str, tensors: dict[str, Tensor]) -> str:
    hasher = hashlib.sha256(runs.encode())
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.numpy().tobytes())
    return hasher.hexdigest()


def run_identity(
    recipe_digest: str,
    backbone_digest: str,
    prompt_names: list[str],
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
    generator: torch.Generator,
) -> str:
    """Return `sha256:` over everything that decides how a run goes."""
    hasher = hashlib.sha256(json.dumps([recipe_digest, backbone_digest, prompt_names]).encode())
    for tensor in (features, labels, generator.get_state()):
        hasher.update(tensor.cpu().contiguous().numpy().tobytes())
    return "sha256:" + hasher.hexdigest()
