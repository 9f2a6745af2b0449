"""A device that is too small: smaller pieces, one artifact for each size of them, then a reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from models.artifact import Artifact
from models.backbone import IMAGE_BATCH, Backbone
from models.checkpoint import Checkpoint
from models.chunks import Chunks, smaller
from models.errors import (
    BackboneUnavailable,
    BadRecipe,
    Cancelled,
    DeviceUnavailable,
    OutOfMemory,
    ShotlineError,
)
from models.faults import fault_of
from models.features import MemoryFeatureStore, feature_space
from models.trust.photograph import STATISTICS_VERSION
from models.tuning import SilentObserver
from tests.unit.models.test_tuning import Tune, Watch

FULL = "CUDA out of memory. Tried to allocate 20.00 MiB."


class SmallDevice:
    """Holds so many prompts and images, and notes the sizes that it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
        self.prompts = self.images = 1_000
        self.asked: list[int] = []
        self._run, self._encode = backbone.text._run, backbone.encode_batch
        monkeypatch.setattr(backbone.text, "_run", self.run)
        monkeypatch.setattr(backbone, "encode_batch", self.encode)

    def run(self, embeddings: Tensor, eot: Tensor, **options: Any) -> Tensor:
        self.asked.append(len(eot))
        if len(eot) > self.prompts:
            raise torch.OutOfMemoryError(FULL)
        return self._run(embeddings, eot, **options)

    def encode(self, pixels: Tensor) -> Tensor:
        self.asked.append(len(pixels))
        if len(pixels) > self.images:
            raise torch.OutOfMemoryError(FULL)
        return self._encode(pixels)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> SmallDevice:
    return SmallDevice(monkeypatch, backbone)


def test_classes_that_do_not_fit_are_run_in_smaller_chunks(
    tune: Tune, artifact: Artifact, device: SmallDevice
) -> None:
    device.prompts = 2
    small = tune()
    assert small.header.made_on == f"{artifact.header.made_on}, 2 classes at a time"
    for name, tensor in artifact.tensors.items():
        torch.testing.assert_close(
            torch.tensor(small.tensors[name]), torch.tensor(tensor), atol=1e-4, rtol=0
        )
    assert tune().digest == small.digest  # as deterministic as any other
    device.prompts = 1_000
    assert tune().digest == artifact.digest  # nothing stays behind


def test_a_tuning_that_was_resumed_keeps_its_chunks(tune: Tune, device: SmallDevice) -> None:
    device.prompts = 2
    whole, watch = tune(), Watch(cancel_after=2)
    with pytest.raises(Cancelled):
        tune(observer=watch)
    assert watch.last.chunks == Chunks(texts=2)
    device.prompts = 1_000  # another worker, with more memory
    resumed = tune(checkpoint=watch.last)
    assert resumed.digest == whole.digest
    assert resumed.header.made_on == whole.header.made_on


def test_a_device_that_is_full_later_on_gives_the_artifact_of_a_small_one(
    tune: Tune, device: SmallDevice
) -> None:
    class Shrinks(SilentObserver):
        def on_checkpoint(self, checkpoint: Checkpoint) -> None:
            device.prompts = 2

    late = tune(observer=Shrinks())
    assert device.prompts == 2
    assert late.digest == tune().digest


def test_images_that_do_not_fit_are_encoded_in_smaller_batches(
    tune: Tune, artifact: Artifact, backbone: Backbone, device: SmallDevice
) -> None:
    device.images = 5
    store = MemoryFeatureStore()
    small = tune(store=store)
    assert small.header.made_on == f"{artifact.header.made_on}, 4 images at a time"
    every = {key.backbone_digest for key in store._features}
    spaces = {space for space in every if not space.startswith(STATISTICS_VERSION)}
    # Nothing that was rounded otherwise is taken for what the usual batches give.
    assert spaces == {f"{feature_space(backbone)} batches of 4"}
    assert backbone.image_batch == IMAGE_BATCH
    assert tune(store=store).digest == small.digest


@pytest.mark.parametrize(("what", "one"), [("prompts", "class"), ("images", "image")])
def test_the_end_names_what_to_change(tune: Tune, device: SmallDevice, what: str, one: str) -> None:
    setattr(device, what, 0)
    with pytest.raises(OutOfMemory, match=f"even with one {one} at a time") as caught:
        tune()
    assert "smaller backbone" in caught.value.fix
    assert device.asked[-1] == 1


def test_other_errors_are_not_tried_again(tune: Tune, device: SmallDevice) -> None:
    class Breaks(SilentObserver):
        def on_checkpoint(self, checkpoint: Checkpoint) -> None:
            raise BadRecipe("No.", fix="Another.")

    with pytest.raises(BadRecipe):
        tune(observer=Breaks())
    assert device.asked.count(IMAGE_BATCH) == 1


@pytest.mark.parametrize(
    ("size", "next_size"), [(128, 64), (100, 64), (10, 8), (3, 2), (2, 1), (1, None)]
)
def test_the_sizes_that_are_tried(size: int, next_size: int | None) -> None:
    assert smaller(size) == next_size


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


FAULTS: dict[str, tuple[Callable[[], Exception], str | None]] = {
    "PyTorch's own": (lambda: torch.OutOfMemoryError(FULL), "memory"),
    "the first allocation": (lambda: torch.AcceleratorError("CUDA error: out of memory"), "memory"),
    "the CPU's": (lambda: RuntimeError("DefaultCPUAllocator: not enough memory"), "memory"),
    "Python's": (MemoryError, "memory"),
    "cuBLAS's": (lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"), "memory"),
    "an assert": (
        lambda: torch.AcceleratorError("CUDA error: device-side assert triggered"), "lost",
    ),
    "off the bus": (lambda: RuntimeError("CUDA error: unspecified launch failure"), "lost"),
    "the driver": (lambda: RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at"), "lost"),
    "cuDNN": (lambda: RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "lost"),
    "no device": (lambda: DeviceUnavailable("No GPU.", fix="Plug it in."), "lost"),
    "wrapped": (
        lambda: caused(
            BackboneUnavailable("Could not be loaded.", fix="Look."),
            RuntimeError("CUDA error: an illegal memory access was encountered"),
        ),
        "lost",
    ),
    "another runtime error": (lambda: RuntimeError("mat1 and mat2 shapes cannot be"), None),
    "words in another error": (lambda: ValueError("CUDA error"), None),
    "of the tree": (lambda: ShotlineError("NVML.", fix="None."), None),
}  # fmt: skip


@pytest.mark.parametrize(("make", "fault"), FAULTS.values(), ids=FAULTS)
def test_faults_are_told_apart(make: Callable[[], Exception], fault: str | None) -> None:
    assert fault_of(make()) == fault
