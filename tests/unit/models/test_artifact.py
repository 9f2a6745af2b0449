"""The artifact: it comes back bit for bit, or it is refused."""

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from models.artifact import Artifact, read_artifact, write_artifact
from models.errors import ArtifactMismatch, DamagedArtifact, ShotlineError, StorageFull


def same(one: Artifact, other: Artifact) -> bool:
    """Compare all that two artifacts hold; safetensors keeps its header in no order."""
    return (
        one.digest == other.digest
        and one.header == other.header
        and all(
            tensor.shape == other.tensors[name].shape
            and tensor.tobytes() == other.tensors[name].tobytes()
            for name, tensor in one.tensors.items()
        )
    )


def with_metadata(artifact: Artifact, **values: str) -> bytes:
    """Return the artifact's bytes with other entries in its metadata."""
    data = artifact.to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return safetensors.numpy.save(artifact.tensors, metadata=header | values)


def test_an_artifact_comes_back_bit_for_bit(artifact: Artifact) -> None:
    again = Artifact.from_bytes(artifact.to_bytes())

    assert same(again, artifact)
    assert same(Artifact.from_bytes(again.to_bytes()), artifact)


def test_a_file_comes_back(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    write_artifact(artifact, path)

    assert same(read_artifact(path), artifact)
    assert list(path.parent.iterdir()) == [path]


def test_its_tensors_are_named_and_shaped(artifact: Artifact) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in artifact.tensors.items()}

    square = (3, 16)
    assert shapes == {
        "class_embeddings": square,
        "class_means": square,
        "ctx": (4, 32),
        "fold_embeddings": (2 * 3, 16),
        "fold_scales": (2 * 3,),
        "photographs": (12, 4),
        "text_features": square,
        "zero_shot_features": square,
    }
    assert artifact.class_embeddings is artifact.tensors["class_embeddings"]


@settings(max_examples=300)
@given(data=st.data(), flip=st.integers(1, 255))
def test_a_changed_byte_is_never_another_artifact(
    artifact: Artifact, data: st.DataObject, flip: int
) -> None:
    whole = artifact.to_bytes()
    damaged = bytearray(whole)
    damaged[data.draw(st.integers(0, len(whole) - 1))] ^= flip

    try:
        read = Artifact.from_bytes(bytes(damaged))
    except ShotlineError:
        return
    assert same(read, artifact)


def test_every_byte_of_the_tensors_counts(artifact: Artifact) -> None:
    whole = artifact.to_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")

    for position in range(start, len(whole), 61):
        damaged = whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
        with pytest.raises(DamagedArtifact, match="digest"):
            Artifact.from_bytes(damaged)


def test_no_prefix_is_an_artifact(artifact: Artifact) -> None:
    whole = artifact.to_bytes()

    for end in (*range(64), *range(64, len(whole), 499), len(whole) - 1):
        with pytest.raises(DamagedArtifact, match=r"The artifact is .*damaged"):
            Artifact.from_bytes(whole[:end])


@pytest.mark.parametrize(
    "data",
    [
        *(b"\xff" * 50, b"PK\x03\x04" * 20, b"{}" * 30, bytes(80)),
        safetensors.numpy.save({"weight": np.zeros(2)}),
        safetensors.numpy.save({}, metadata={"format": "shotline-checkpoint/1"}),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedArtifact, match="The artifact is no tuned model, or") as caught:
        Artifact.from_bytes(data)
    assert "`shotline tune` wrote" in caught.value.fix


def test_a_header_that_says_what_cannot_be_is_named_on_one_line(artifact: Artifact) -> None:
    values = artifact.header.model_dump(mode="json")
    values["recipe"]["lr"] = -1
    header = json.dumps(values)
    checksum = hashlib.sha256(header.encode()).hexdigest()

    with pytest.raises(DamagedArtifact, match=r"header's recipe\.lr: Input should be gr") as caught:
        Artifact.from_bytes(with_metadata(artifact, header=header, checksum=checksum))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"classes": 2}, "2 classes have 3 rows of class_embeddings"),
        ({"n_train": 4}, "3 classes have 4 rows of n_train"),
        ({"zero_shot_features": 2}, "3 classes have 2 rows of zero_shot_features"),
    ],
)
def test_classes_counts_and_rows_must_be_as_many(
    artifact: Artifact, changes: dict[str, int], problem: str
) -> None:
    header, tensors = artifact.header, dict(artifact.tensors)
    for name, count in changes.items():
        if name in tensors:
            tensors[name] = tensors[name][:count]
        else:
            longer = [*getattr(header, name), getattr(header, name)[0]]
            header = header.model_copy(update={name: longer[:count]})

    with pytest.raises(DamagedArtifact, match=problem):
        Artifact.from_bytes(Artifact(header, tensors).to_bytes())


def test_another_version_is_refused(artifact: Artifact) -> None:
    with pytest.raises(ArtifactMismatch, match="format version 3; this Shotline reads 1 and 2"):
        Artifact.from_bytes(with_metadata(artifact, format_version="3"))


@pytest.mark.parametrize("field", ["header", "checksum", "digest"])
def test_a_header_that_does_not_fit_its_sums_is_refused(artifact: Artifact, field: str) -> None:
    with pytest.raises(DamagedArtifact):
        Artifact.from_bytes(with_metadata(artifact, **{field: "{}"}))


def test_another_header_under_a_right_checksum_is_refused(
    artifact: Artifact, tmp_path: Path
) -> None:
    other = Artifact(artifact.header.model_copy(update={"seed": 99}), artifact.tensors)

    with pytest.raises(DamagedArtifact, match=other.digest[:19]):
        Artifact.from_bytes(with_metadata(other, digest=artifact.digest))


def test_a_tensor_that_is_missing_is_named(artifact: Artifact) -> None:
    data = artifact.to_bytes()
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    part = {name: tensor for name, tensor in artifact.tensors.items() if name != "ctx"}

    with pytest.raises(DamagedArtifact, match=r"The artifact is damaged: it lacks ctx\."):
        Artifact.from_bytes(safetensors.numpy.save(part, metadata=metadata))


@pytest.mark.parametrize(
    ("field", "value", "counts"),
    [
        ("backbone_digest", "sha256:other", True),
        ("seed", 1, True),
        ("snapshot", "sha256:other", True),
        ("n_train", [1, 2, 3], True),
        ("logit_scale", 1.0, True),
        ("backbone", "another/form", False),
        ("shotline", "9.9", False),
        ("made_on", "another processor", False),
    ],
)
def test_the_digest_covers_what_it_answers_with(
    artifact: Artifact, field: str, value: object, counts: bool
) -> None:
    other = Artifact(artifact.header.model_copy(update={field: value}), artifact.tensors)

    assert (other.digest != artifact.digest) == counts


def test_the_digest_covers_recipe_view_classes_and_tensors(artifact: Artifact) -> None:
    header = artifact.header
    headers = [
        header.model_copy(update={"recipe": header.recipe.model_copy(update={"lr": 0.2})}),
        header.model_copy(update={"view": header.view.model_copy(update={"resize": "crop"})}),
        header.model_copy(update={"classes": header.classes[::-1]}),
    ]
    others = [Artifact(other, artifact.tensors) for other in headers]
    for name, tensor in artifact.tensors.items():
        others.append(Artifact(header, artifact.tensors | {name: tensor + 1}))

    assert len({other.digest for other in [artifact, *others]}) == 12


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"

    with pytest.raises(DamagedArtifact, match=r"model\.safetensors cannot be read: No such file"):
        read_artifact(path)


def test_a_damaged_file_is_named(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(artifact.to_bytes()[:-1])

    with pytest.raises(DamagedArtifact, match=r"The artifact .*model\.safetensors is damaged") as e:
        read_artifact(path)
    assert "tune again" in e.value.fix


def test_a_full_disk_leaves_the_old_file(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    write_artifact(artifact, path)

    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    other = Artifact(artifact.header.model_copy(update={"seed": 9}), artifact.tensors)
    with pytest.raises(StorageFull, match=r"model\.safetensors"):
        write_artifact(other, path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_artifact(path).digest == artifact.digest


def test_how_a_tensor_lies_in_memory_is_not_in_the_digest(artifact: Artifact) -> None:
    tensors = {name: np.asfortranarray(value) for name, value in artifact.tensors.items()}

    assert not tensors["class_embeddings"].flags.c_contiguous
    assert same(Artifact(artifact.header, tensors), artifact)
