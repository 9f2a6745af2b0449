"""The image encoder computed by PyTorch, on whatever device the backbone is."""

import numpy as np
import torch
from jaxtyping import Float, UInt8

from models.backbone import Backbone


class TorchEncoder:
    """PyTorch, on whatever device the backbone is."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.source, self.digest = backbone.source, backbone.digest
        self.pixels = backbone.pixels

    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        return self._backbone.encode_batch(torch.from_numpy(pixels)).numpy()
