"""What computes image features, whichever library does it."""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, UInt8

from models.imaging import PixelSpec


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

    @property
    def about(self) -> str:
        """What computes, and why that was chosen, for people."""
        ...

    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        ...


class BackboneFacts(NamedTuple):
    """What the gateway knows of a backbone whose image encoder another library computes."""

    source: str
    digest: str
    pixels: PixelSpec


def warm_up(encoder: ImageEncoder) -> None:
    """Encode an image: the first batch sets up what later ones use."""
    size = encoder.pixels.size
    encoder.encode(np.zeros((1, 3, size, size), dtype=np.uint8))
