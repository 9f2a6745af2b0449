"""Checkpoints: what is stored is what was, or it is refused."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoint import Checkpoint, RunCheckpoint, RunIdentity, read_checkpoint
from models.errors import CheckpointMismatch, DamagedArtifact, StorageUnusable


def run(number: int) -> RunCheckpoint:
    generator = torch.Generator().manual_seed(number)
    return RunCheckpoint(
        identity=RunIdentity("recipe", "backbone", "names", f"images {number}", "seed"),
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
        with pytest.raises(DamagedArtifact, match=rf"checkpoint is .* \({end} bytes\)"):
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
        {"format": "shotline-checkpoint/1", "runs": "[]", "checksum": "0"},
        {"format": "shotline-checkpoint/1", "runs": "[]"},
        {"format": "shotline-checkpoint/1", "checksum": ""},
    ],
)
def test_a_checkpoint_that_is_not_what_was_written_is_damaged(metadata: dict[str, str]) -> None:
    data = safetensors.torch.save({"0.ctx": torch.zeros(1)}, metadata=metadata)

    with pytest.raises(DamagedArtifact, match="The checkpoint is damaged") as caught:
        Checkpoint.from_bytes(data)
    assert caught.value.fix.startswith("Delete it")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xe0 a photograph",
        safetensors.torch.save({"0.ctx": torch.zeros(1)}),
        safetensors.torch.save({}, metadata={"format_version": "1"}),
        safetensors.torch.save({}, metadata={"format": "shotline-checkpoint/2", "runs": "[]"}),
    ],
    ids=["empty", "photograph", "no metadata", "another kind", "another version"],
)
def test_nobody_is_told_to_delete_a_file_of_another_kind(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)

    with pytest.raises(DamagedArtifact, match=rf"checkpoint {path} is no checkpoint") as caught:
        read_checkpoint(path)
    assert "elete" not in caught.value.fix
    assert path.read_bytes() == data


def test_a_checkpoint_file_is_read_or_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(BYTES)
    assert contents(read_checkpoint(path)) == contents(WHOLE)

    path.write_bytes(BYTES[:-1])
    with pytest.raises(DamagedArtifact, match=f"The checkpoint {path} is damaged"):
        read_checkpoint(path)
    with pytest.raises(StorageUnusable, match=f"{tmp_path} cannot be read: Is a directory"):
        read_checkpoint(tmp_path)


def test_a_header_that_is_no_object_is_refused() -> None:
    header = json.dumps({"__metadata__": [1]}).encode()

    with pytest.raises(DamagedArtifact):
        Checkpoint.from_bytes(len(header).to_bytes(8, "little") + header)


def test_a_run_is_checked_by_its_identity() -> None:
    mine = run(1).identity
    run(1).check(mine)

    with pytest.raises(CheckpointMismatch, match=r"another run: it differs in images\."):
        run(1).check(run(2).identity)
    with pytest.raises(CheckpointMismatch, match=r"it differs in recipe and prompt names\."):
        run(1).check(mine._replace(recipe="other", prompt_names="other"))


def test_everything_that_decides_a_run_is_in_its_identity() -> None:
    features, labels = torch.eye(3), torch.tensor([0, 1, 1])

    def identity(
        recipe: str = "r",
        backbone: str = "b",
        names: str = "xy",
        features: torch.Tensor = features,
        labels: torch.Tensor = labels,
        seed: int = 0,
    ) -> RunIdentity:
        generator = torch.Generator().manual_seed(seed)
        return RunIdentity.of(recipe, backbone, list(names), features, labels, generator)

    changed = {
        "recipe": [identity(recipe="s")],
        "backbone": [identity(backbone="c")],
        "prompt_names": [identity(names="xz")],
        "images": [identity(features=2 * features), identity(labels=labels.flip(0))],
        "seed": [identity(seed=1)],
    }
    usual = identity()
    assert usual == identity()
    assert tuple(changed) == RunIdentity._fields
    for field, others in changed.items():
        for other in others:
            assert other != usual
            assert other == usual._replace(**{field: getattr(other, field)})
