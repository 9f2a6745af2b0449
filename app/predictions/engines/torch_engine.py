"""The image encoder computed by PyTorch, as it is or compiled."""

import numpy as np
import torch
from jaxtyping import Float, UInt8

from models.backbone import Backbone


class TorchEncoder:
    """PyTorch, on whatever device the backbone is."""

    def __init__(self, backbone: Backbone, about: str) -> None:
        self._backbone, self.about = backbone, about
        self.source, self.digest = backbone.source, backbone.digest
        self.pixels = backbone.pixels
        if backbone.device.type == "cuda":  # the order in which a GPU's convolutions are fastest
            backbone.image.to(memory_format=torch.channels_last)

    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        return self._backbone.encode_batch(torch.from_numpy(pixels)).numpy()


class CompiledTorchEncoder(TorchEncoder):
    """PyTorch compiled for each size of batch, on a GPU as a CUDA graph.

    Batches are filled up to a power of two, so that few sizes have to be compiled: all are when
    the encoder is made, which takes minutes. Larger ones are encoded in pieces.
    """

    def __init__(self, backbone: Backbone, about: str, max_batch: int) -> None:
        super().__init__(backbone, about)
        mode = "reduce-overhead" if backbone.device.type == "cuda" else "default"
        self._largest = _filled(max_batch)
        self._compiled = torch.compile(backbone.image, dynamic=False, mode=mode)
        size = self.pixels.size
        for count in sorted({_filled(count) for count in range(1, max_batch + 1)}):
            self.encode(np.zeros((count, 3, size, size), dtype=np.uint8))

    @torch.no_grad()
    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        if len(pixels) > self._largest:
            starts = range(0, len(pixels), self._largest)
            return np.concatenate([self.encode(pixels[i : i + self._largest]) for i in starts])
        count = len(pixels)
        full = np.zeros((_filled(count), *pixels.shape[1:]), dtype=np.uint8)
        full[:count] = pixels
        with self._backbone.autocast():
            features = self._compiled(torch.from_numpy(full).to(self._backbone.device))
        found: np.ndarray = features[:count].cpu().numpy()
        return found


def _filled(count: int) -> int:
    return 1 << (count - 1).bit_length()
