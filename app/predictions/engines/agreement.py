"""Does an engine decide as PyTorch does? Asked of pictures that are drawn for it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from app.predictions.engines.encoder import ImageEncoder

if TYPE_CHECKING:
    from models.backbone import Backbone

# Single precision differs by 1e-6 at most; what differs by more has another reason.
LEAST_COSINE = 0.9999

_KINDS, _PICTURES = 4, 16
# Classes for the pictures to be sorted into; any that differ would do.
_NAMES = (
    *("a scratch", "a clean surface", "a dent", "woven fabric", "a hole", "a blurred photo"),
    *("stripes", "a disc", "noise", "a colourful picture", "a dark picture", "a bright picture"),
)


class Probe(NamedTuple):
    """What PyTorch says of the pictures.

    Attributes:
        features: of the pictures of `pictures`.
        texts: text features of the classes that they are sorted into.
    """

    features: Float[np.ndarray, "n embed_dim"]
    texts: Float[np.ndarray, "n_classes embed_dim"]

    @classmethod
    def of(cls, backbone: "Backbone") -> "Probe":
        """Ask the backbone."""
        # torch is there already where a backbone is; without one this module does not need it.
        from torch import from_numpy  # noqa: PLC0415

        shown = from_numpy(pictures(backbone.pixels.size))
        texts = [f"a photo of {name}" for name in _NAMES]
        return cls(backbone.encode_batch(shown).numpy(), backbone.encode_texts(texts).numpy())


def least_cosine(
    left: Float[np.ndarray, "b embed_dim"], right: Float[np.ndarray, "b embed_dim"]
) -> float:
    """Return the smallest cosine between a feature and its counterpart; NaN where there is one."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(((left * right).sum(axis=1) / lengths).min())


def agreement(encoder: ImageEncoder, probe: Probe) -> tuple[float, str | None]:
    """Return the smallest cosine between its features and PyTorch's, and what is wrong, if any."""
    shown = pictures(encoder.pixels.size)
    cosine = 1.0
    # One picture alone too: kernels are chosen by the size of the batch.
    for count in (len(shown), 1):
        features, expected = encoder.encode(shown[:count]), probe.features[:count]
        least = least_cosine(features, expected)
        if not least >= LEAST_COSINE:  # so that NaN is refused
            return least, (
                f"its features are not those of PyTorch: their cosine is {least:.6f}, and has to"
                f" be at least {LEAST_COSINE}"
            )
        cosine = min(cosine, least)
        ours, theirs = (rows @ probe.texts.T for rows in (features, expected))
        other = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
        if other:
            return cosine, f"it decides otherwise than PyTorch on {other} of {count} pictures"
    return cosine, None


def pictures(size: int) -> UInt8[np.ndarray, "16 3 size size"]:
    """Return noise, colours that run into each other, stripes and discs, each in four ways."""
    random = np.random.default_rng(0)
    row, column = np.meshgrid(*2 * [np.linspace(0, 1, size)], indexing="ij")
    made = []
    for number in range(_PICTURES // _KINDS):
        across, down = random.uniform(0.3, 0.7, 2)
        disc = ((row - down) ** 2 + (column - across) ** 2 < 0.02 * (number + 2)).astype(float)
        stripes = ((4 * number + 8) * column % 1 > 0.5).astype(float)
        made += [
            random.uniform(size=(3, size, size)),
            np.stack([row, column, 1 - row]) ** (number + 1),
            np.stack([stripes, stripes, stripes if number % 2 else 1 - stripes]),
            np.roll(np.stack([disc, 0.5 * disc, 1 - disc]), number, axis=0),
        ]
    return (255 * np.stack(made)).astype(np.uint8)
