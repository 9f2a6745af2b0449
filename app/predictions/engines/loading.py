"""From settings to the image encoder of the gateway."""

from collections.abc import Callable
from typing import cast

import numpy as np

from app.core.settings import BackboneSettings
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.openvino_engine import OpenVinoEncoder
from app.predictions.engines.torch_engine import TorchEncoder
from models.backbone import Backbone, Device
from models.backbone_source import load_backbone

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
    encoder.encode(np.zeros((1, 3, size, size), dtype=np.uint8))
    return encoder
