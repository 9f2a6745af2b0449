"""The feature store: an image is encoded once per backbone and view, and never again."""

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.backbone import IMAGE_BATCH, Backbone
from models.dataset import LabelledImage
from models.errors import BadImage, Cancelled, StorageFull, StorageUnusable
from models.features import (
    FeatureKey,
    FeatureStore,
    FolderFeatureStore,
    ImageSource,
    MemoryFeatureStore,
    feature_space,
    image_features,
)
from models.imaging import View
from models.pixels import to_pixels
from tests.unit.models.conftest import build_clip, draw_images, labelled

KEY = FeatureKey("ab" * 32, "sha256:backbone", "sha256:view")
FEATURE = torch.linspace(-1, 1, 16)


@pytest.fixture(params=["memory", "folder"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> FeatureStore:
    return MemoryFeatureStore() if request.param == "memory" else FolderFeatureStore(tmp_path)


@pytest.fixture
def encoded(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the size of every batch the backbone encodes."""
    sizes: list[int] = []
    encode = backbone.encode_images

    def count(pixels: Tensor) -> Tensor:
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(backbone, "encode_images", count)
    return sizes


def only_file(root: Path) -> Path:
    (path,) = (path for path in root.rglob("*") if path.is_file())
    return path


def test_a_feature_comes_back_bit_for_bit(any_store: FeatureStore) -> None:
    assert any_store.get(KEY) is None
    any_store.put(KEY, FEATURE)

    feature = any_store.get(KEY)
    assert feature is not None
    assert torch.equal(feature, FEATURE)
    assert feature.dtype == torch.float32


@pytest.mark.parametrize("field", FeatureKey._fields)
def test_every_part_of_the_key_counts(any_store: FeatureStore, field: str) -> None:
    any_store.put(KEY, FEATURE)

    assert any_store.get(KEY._replace(**{field: "cd" * 32})) is None


def test_a_folder_serves_another_process(tmp_path: Path) -> None:
    FolderFeatureStore(tmp_path).put(KEY, FEATURE)

    feature = FolderFeatureStore(tmp_path).get(KEY)
    assert feature is not None
    assert torch.equal(feature, FEATURE)


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    store = FolderFeatureStore(tmp_path)
    store.put(KEY, FEATURE)
    path = only_file(tmp_path)
    whole = path.read_bytes()

    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        assert store.get(KEY) is None
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert store.get(KEY) is None
    store.put(KEY, FEATURE)
    assert store.get(KEY) is not None


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: Backbone
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageFull, match="The disk is full") as caught:
        image_features(draw_images(1, 1, 1), backbone, View(), FolderFeatureStore(tmp_path))
    assert "Free space" in caught.value.fix
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "features"
    file.write_bytes(b"a file where a folder is meant")
    store = FolderFeatureStore(file)

    with pytest.raises(StorageUnusable, match=f"{file}.* cannot be read: Not a directory"):
        store.get(KEY)
    with pytest.raises(StorageUnusable, match=f"{file}.* cannot be written: "):
        store.put(KEY, FEATURE)


def test_a_store_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    store = FolderFeatureStore(tmp_path / "features")
    assert store.get(KEY) is None
    with pytest.raises(StorageUnusable, match="cannot be written: Read-only file system"):
        store.put(KEY, FEATURE)


def test_images_are_encoded_once(
    backbone: Backbone,
    any_store: FeatureStore,
    images: list[LabelledImage],
    encoded: list[int],
) -> None:
    first = image_features(images, backbone, View(), any_store)
    again = image_features(images[::-1], backbone, View(), any_store)

    assert encoded == [12]
    assert torch.equal(first, again.flip(0))
    torch.testing.assert_close(first.norm(dim=1), torch.ones(12))


def test_only_what_is_missing_is_encoded(
    backbone: Backbone, any_store: FeatureStore, images: list[LabelledImage], encoded: list[int]
) -> None:
    image_features(images[:5], backbone, View(), any_store)
    image_features(images, backbone, View(), any_store)
    assert encoded == [5, 7]

    image_features(images, backbone, View(resize="crop"), any_store)
    assert encoded == [5, 7, 12]


def test_a_damaged_feature_is_computed_again(
    backbone: Backbone, tmp_path: Path, encoded: list[int]
) -> None:
    images, store = draw_images(1, 0, 0), FolderFeatureStore(tmp_path)
    whole = image_features(images, backbone, View(), store)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        path.write_bytes(b"\x93NUMPY")

    assert torch.equal(image_features(images, backbone, View(), store), whole)
    assert torch.equal(image_features(images, backbone, View(), store), whole)
    assert encoded == [1, 1]


def test_a_feature_is_the_images_own(
    backbone: Backbone, store: MemoryFeatureStore, images: list[LabelledImage]
) -> None:
    together = image_features(images, backbone, View(), store)

    for image, feature in zip(images, together, strict=True):
        pixels = torch.from_numpy(to_pixels(image.read(), View(), 32)[None])
        assert torch.equal(backbone.encode_images(pixels)[0], feature)


def test_an_image_that_occurs_twice_is_encoded_once(
    backbone: Backbone, store: MemoryFeatureStore, encoded: list[int]
) -> None:
    image = draw_images(1, 0, 0)[0]

    features = image_features([image, image], backbone, View(), store)
    assert encoded == [1]
    assert torch.equal(features[0], features[1])


def test_no_images_have_no_features(backbone: Backbone, store: MemoryFeatureStore) -> None:
    assert image_features([], backbone, View(), store).shape == (0, 16)


def test_progress_is_told_and_may_stop_it(backbone: Backbone, store: MemoryFeatureStore) -> None:
    images, told = draw_images(20, 0, 0), []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == IMAGE_BATCH:
            raise Cancelled

    with pytest.raises(Cancelled):
        image_features(images, backbone, View(), store, progress=stop)
    assert told == [(0, 20), (16, 20)]

    # What was encoded before the stop was kept.
    told.clear()
    image_features(images, backbone, View(), store, progress=lambda *at: told.append(at))
    assert told == [(16, 20), (20, 20)]


def test_a_bad_image_is_refused(backbone: Backbone, store: MemoryFeatureStore) -> None:
    with pytest.raises(BadImage, match="not an image"):
        image_features([labelled(0, b"no image")], backbone, View(), store)


def test_features_of_another_arithmetic_or_device_are_kept_apart(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Backbone(build_clip(), backbone.tokenize, source="tiny", device="cpu", precision="bf16")

    assert half.digest == backbone.digest
    assert feature_space(backbone) == f"{backbone.digest} cpu fp32"
    assert feature_space(half) == f"{backbone.digest} cpu bf16"
    monkeypatch.setattr(backbone, "device", torch.device("cuda", 0))
    assert feature_space(backbone) == f"{backbone.digest} cuda fp32"


def test_what_the_core_gives_fits_its_protocols(tmp_path: Path) -> None:
    assert isinstance(MemoryFeatureStore(), FeatureStore)
    assert isinstance(FolderFeatureStore(tmp_path), FeatureStore)
    assert isinstance(labelled(0, b"x"), ImageSource)
