"""The image tower with all that comes before and after it, as one module."""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize


class ImageTower(nn.Module):
    """From pixels to L2-normalised image features: what every engine computes.

    Args:
        clip: a CLIP or a CustomTextCLIP of open_clip.
        mean: of each channel of the images that it was trained on, where white is 1.
        std: likewise the standard deviation.
    """

    mean: Float[Tensor, "1 3 1 1"]
    std: Float[Tensor, "1 3 1 1"]

    def __init__(self, clip: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self._clip: Any = clip
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, pixels: UInt8[Tensor, "b 3 size size"]) -> Float[Tensor, "b embed_dim"]:
        """Return the features of one batch in single precision."""
        features = self._clip.encode_image(self.normalised(pixels))
        return normalize(features.float(), dim=-1)

    @property
    def vision(self) -> nn.Module:
        """The tower itself, between the pixels' normalisation and that of the features."""
        tower: nn.Module = self._clip.visual
        return tower

    def normalised(self, pixels: UInt8[Tensor, "b 3 size size"]) -> Float[Tensor, "b 3 size size"]:
        """Return the pixels as the image encoder reads them."""
        return (pixels.float() - self.mean) / self.std
