"""The feature store: an image is encoded once per backbone and view, and never again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from models.backbone import IMAGE_BATCH, Backbone
from models.errors import file_errors
from models.files import write_atomic
from models.imaging import View
from models.pixels import to_pixels
from models.progress import Progress, no_progress
from models.trust.photograph import (
    STATISTICS_VERSION,
    PhotographStatistics,
    photograph_statistics,
)

_DIGEST_SIZE = hashlib.sha256().digest_size


@runtime_checkable
class ImageSource(Protocol):
    """An image known by its content."""

    @property
    def sha256(self) -> str:
        """The hexadecimal sha256 of the bytes."""

    def read(self) -> bytes:
        """Return the bytes as they came."""


class FeatureKey(NamedTuple):
    """What an image feature depends on."""

    image_sha256: str
    backbone_digest: str
    view_digest: str


@runtime_checkable
class FeatureStore(Protocol):
    """Where image features are kept."""

    def get(self, key: FeatureKey) -> Float[Tensor, " embed_dim"] | None:
        """Return the feature, or `None` where it has not been computed."""

    def put(self, key: FeatureKey, feature: Float[Tensor, " embed_dim"]) -> None:
        """Keep the feature."""


class MemoryFeatureStore:
    """Keeps features for as long as the process lives."""

    def __init__(self) -> None:
        self._features: dict[FeatureKey, Tensor] = {}

    def get(self, key: FeatureKey) -> Float[Tensor, " embed_dim"] | None:
        """Return the feature, or `None` where it has not been computed."""
        return self._features.get(key)

    def put(self, key: FeatureKey, feature: Float[Tensor, " embed_dim"]) -> None:
        """Keep the feature."""
        self._features[key] = feature


class FolderFeatureStore:
    """Keeps each feature in a file of its own, written atomically; safe for several processes.

    A file holds the feature's single-precision values after their sha256.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: FeatureKey) -> Path:
        space = hashlib.sha256(f"{key.backbone_digest} {key.view_digest}".encode()).hexdigest()[:32]
        return self._root / space / key.image_sha256[:2] / f"{key.image_sha256}.f32"

    def get(self, key: FeatureKey) -> Float[Tensor, " embed_dim"] | None:
        """Return the feature, or `None` where it has not been computed or its file is damaged.

        Raises:
            StorageUnusable: the file, or a folder above it, cannot be read.
        """
        path = self._path(key)
        with file_errors(path, "read"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
        digest, values = data[:_DIGEST_SIZE], data[_DIGEST_SIZE:]
        if hashlib.sha256(values).digest() != digest:
            return None
        return torch.from_numpy(np.frombuffer(values, dtype="<f4").copy())

    def put(self, key: FeatureKey, feature: Float[Tensor, " embed_dim"]) -> None:
        """Keep the feature.

        Raises:
            StorageFull: no space is left.
            StorageUnusable: the folder cannot be written to.
        """
        values = feature.numpy().astype("<f4").tobytes()
        write_atomic(self._path(key), hashlib.sha256(values).digest() + values)


def feature_space(backbone: Backbone) -> str:
    """Return what stands for the backbone in a feature key: its digest and its arithmetic."""
    space = f"{backbone.digest} {backbone.device.type} {backbone.precision}"
    size = backbone.image_batch
    return space if size == IMAGE_BATCH else f"{space} batches of {size}"


def image_features(
    images: Sequence[ImageSource],
    backbone: Backbone,
    view: View,
    store: FeatureStore,
    *,
    progress: Progress = no_progress,
) -> Float[Tensor, "n embed_dim"]:
    """Return the L2-normalised features of `images`, computing those that `store` lacks.

    Args:
        images: in the order of the result.
        backbone: encodes what the store lacks.
        view: how the images are looked at.
        store: asked first and told of everything new.
        progress: called with how many of how many images have their features; may raise to stop.

    Raises:
        BadImage: an image cannot be decoded.
    """
    space = feature_space(backbone)
    keys = [FeatureKey(image.sha256, space, view.digest) for image in images]
    known = {key: feature for key in set(keys) if (feature := store.get(key)) is not None}
    missing = {key: image for key, image in zip(keys, images, strict=True) if key not in known}
    pending = list(missing.items())
    total, done = len(set(keys)), len(known)
    progress(done, total)
    for start in range(0, len(pending), backbone.image_batch):
        batch = pending[start : start + backbone.image_batch]
        size, interpolation = backbone.pixels.size, backbone.pixels.interpolation
        pixels = [to_pixels(image.read(), view, size, interpolation) for _, image in batch]
        encoded = backbone.encode_images(torch.from_numpy(np.stack(pixels)))
        for (key, _), feature, image in zip(batch, encoded, pixels, strict=True):
            store.put(key, feature.clone())
            _keep_statistics(store, _statistics_key(key.image_sha256, backbone, view), image)
            known[key] = feature
        done += len(batch)
        progress(done, total)
    if not keys:
        return torch.empty(0, backbone.embed_dim)
    return torch.stack([known[key] for key in keys])


def statistics_of(
    images: Sequence[ImageSource], backbone: Backbone, view: View, store: FeatureStore
) -> list[PhotographStatistics]:
    """Return the statistics of photographs; decodes those that `store` lacks.

    They stand in the store beside the features, under what they depend on.

    Raises:
        BadImage: an image cannot be decoded.
    """
    spec = backbone.pixels
    found = []
    for image in images:
        key = _statistics_key(image.sha256, backbone, view)
        values = store.get(key)
        if values is None:
            pixels = to_pixels(image.read(), view, spec.size, spec.interpolation)
            values = _keep_statistics(store, key, pixels)
        found.append(PhotographStatistics(*values.tolist()))
    return found


def _statistics_key(sha256: str, backbone: Backbone, view: View) -> FeatureKey:
    spec = backbone.pixels
    return FeatureKey(sha256, f"{STATISTICS_VERSION} {spec.size} {spec.interpolation}", view.digest)


def _keep_statistics(
    store: FeatureStore, key: FeatureKey, pixels: UInt8[np.ndarray, "3 size size"]
) -> Float[Tensor, " 4"]:
    values = torch.tensor(photograph_statistics(pixels), dtype=torch.float32)
    store.put(key, values)
    return values
