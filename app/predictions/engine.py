"""The image encoder behind a small protocol.

With `batcher` and `openvino_engine` the only place that touches torch.
"""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from app.core.settings import BackboneSettings
from app.predictions.openvino_engine import OpenVinoEncoder
from models.backbone import Backbone, Device, PixelSpec
from models.backbone_source import load_backbone


class ImageEncoder(Protocol):
    """From pixels to L2-normalised image features, for all projects alike."""

    @property
    def source(self) -> str:
        """The form by which the backbone was loaded."""
        ...

    @property
    def digest(self) -> str:
        """The backbone; class embeddings of another are of no use here."""
        ...

    @property
    def pixels(self) -> PixelSpec:
        """What images are to be resized to."""
        ...

    def encode(self, pixels: UInt8[Tensor, "b 3 size size"]) -> Float[Tensor, "b embed_dim"]:
        """Return the features of one batch, on the CPU."""
        ...


class TorchEncoder:
    """PyTorch, on whatever device the backbone is."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.source, self.digest = backbone.source, backbone.digest
        self.pixels = backbone.pixels

    def encode(self, pixels: UInt8[Tensor, "b 3 size size"]) -> Float[Tensor, "b embed_dim"]:
        """Return the features of one batch, on the CPU."""
        return self._backbone.encode_batch(pixels)


_ENGINES: dict[str, Callable[[Backbone], ImageEncoder]] = {
    "torch": TorchEncoder,
    "openvino": OpenVinoEncoder,
}


def load_encoder(settings: BackboneSettings) -> ImageEncoder:
    """Load the backbone and encode an image once: the first batch sets up what later ones use.

    Raises:
        BackboneUnavailable: see `models.backbone_source.load_backbone` and `OpenVinoEncoder`.
    """
    backbone = load_backbone(
        settings.name,
        device=cast("Device", settings.device),
        precision=settings.precision,
        offline=settings.offline,
    )
    encoder = _ENGINES[settings.engine](backbone)
    size = encoder.pixels.size
    encoder.encode(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    return encoder
