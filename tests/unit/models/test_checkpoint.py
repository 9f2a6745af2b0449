"""Checkpoints: what is stored is what was, or it is refused."""

import json
from dataclasses import asdict

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint import Checkpoint, RunCheckpoint, run_identity
from models.errors import CheckpointMismatch, DamagedArtifact


def run(number: int) -> RunCheckpoint:
    generator = torch.Generator().manual_seed(number)
    return RunCheckpoint(
        identity=f"sha256:{number:064d}",
        epoch=number,
        step=10 * number,
        ctx=torch.randn(2, 4, 8, generator=generator),
        momentum=torch.randn(2, 4, 8, generator=generator),
        generator=generator.get_state(),
        history=[{"epoch": 1, "loss": 0.1 + number}],
    )


def contents(checkpoint: Checkpoint) -> list[dict[str, object]]:
    """Return all that a checkpoint holds; safetensors keeps its header in no order."""
    runs = [asdict(run) for run in checkpoint.runs]
    return [
        {k: v.numpy().tobytes() if isinstance(v, torch.Tensor) else v for k, v in run.items()}
        for run in runs
    ]


WHOLE = Checkpoint((run(1), run(2)))
BYTES = WHOLE.to_bytes()


def test_a_checkpoint_comes_back_bit_for_bit() -> None:
    again = Checkpoint.from_bytes(BYTES)

    assert contents(again) == contents(WHOLE)
    assert [run.ctx.shape for run in again.runs] == [run.ctx.shape for run in WHOLE.runs]


def test_an_empty_checkpoint_comes_back() -> None:
    assert Checkpoint.from_bytes(Checkpoint().to_bytes()) == Checkpoint()


def test_a_run_replaces_itself_and_forgets_what_came_after() -> None:
    later = WHOLE.with_run(2, run(3))
    assert later.runs == (*WHOLE.runs, later.runs[2])
    assert later.run(2) is later.runs[2]
    assert later.run(3) is None

    again = later.with_run(1, run(4))
    assert [item.epoch for item in again.runs] == [1, 4]


def test_no_prefix_is_a_checkpoint() -> None:
    for end in range(0, len(BYTES), 97):
        with pytest.raises(DamagedArtifact, match=f"checkpoint of {end} bytes is damaged"):
            Checkpoint.from_bytes(BYTES[:end])


@given(position=st.integers(0, len(BYTES) - 1), flip=st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, flip: int) -> None:
    damaged = bytearray(BYTES)
    damaged[position] ^= flip

    try:
        read = Checkpoint.from_bytes(bytes(damaged))
    except DamagedArtifact:
        return
    assert contents(read) == contents(WHOLE)  # white space, or a key that nothing reads


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"format": "shotline-checkpoint/2", "runs": "[]", "checksum": ""},
        {"format": "shotline-checkpoint/1", "runs": "[]", "checksum": "0"},
        {"format": "shotline-checkpoint/1", "runs": "[]"},
    ],
)
def test_a_file_of_another_kind_is_refused(metadata: dict[str, str]) -> None:
    data = safetensors.torch.save({"0.ctx": torch.zeros(1)}, metadata=metadata)

    with pytest.raises(DamagedArtifact, match="checkpoint") as caught:
        Checkpoint.from_bytes(data)
    assert "starts from the beginning" in caught.value.fix


def test_a_header_that_is_no_object_is_refused() -> None:
    header = json.dumps({"__metadata__": [1]}).encode()

    with pytest.raises(DamagedArtifact):
        Checkpoint.from_bytes(len(header).to_bytes(8, "little") + header)


def test_a_run_is_checked_by_its_identity() -> None:
    run(1).check(run(1).identity)
    with pytest.raises(CheckpointMismatch, match="belongs to the run sha256:000000000000…"):
        run(1).check(run(2).identity)


def test_everything_that_decides_a_run_is_in_its_identity() -> None:
    features, labels = torch.eye(3), torch.tensor([0, 1, 1])

    def identity(
        recipe: str = "r",
        backbone: str = "b",
        names: str = "xy",
        features: torch.Tensor = features,
        labels: torch.Tensor = labels,
        seed: int = 0,
    ) -> str:
        generator = torch.Generator().manual_seed(seed)
        return run_identity(recipe, backbone, list(names), features, labels, generator)

    changed = [
        identity(recipe="s"),
        identity(backbone="c"),
        identity(names="xz"),
        identity(features=2 * features),
        identity(labels=labels.flip(0)),
        identity(seed=1),
    ]
    assert len({identity(), *changed}) == 7
    assert identity() == identity()
