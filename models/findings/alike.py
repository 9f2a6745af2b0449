"""Whether one image is a copy of another, or of a part of it: correlation of their thumbnails.

Features say which images are worth comparing, and are blind to what tells two parts of one kind
apart; perceptual hashes change when an image is cropped. Two photographs of two parts differ in
their grain, copies do not: so the thumbnails are compared with what is smooth in them taken out.
"""

from functools import lru_cache

import numpy as np
import PIL.Image
from jaxtyping import Float, Int, UInt8
from scipy.ndimage import uniform_filter

from models.findings.traits import THUMBNAIL

# Parts that one image is taken for within another, as shares of its side.
_SCALES = (1.0, 0.95, 0.9, 0.85, 0.8)
_SMOOTH = 9  # pixels of the thumbnail over which the mean is taken out
_AT_ONCE = 128
# Thumbnails that are made ready together, 130 kB each, and pairs where there are more.
_READY, _PAIRS = 2000, 1024
# Of grey levels: what is flatter has no grain to compare, and correlates by accident.
_FLAT = 1.0

_Thumbnails = UInt8[np.ndarray, "n 64 64"]
_Grain = Float[np.ndarray, "n side side"]


def likeness(
    thumbnails: _Thumbnails, pairs: Int[np.ndarray, "n_pairs 2"]
) -> Float[np.ndarray, " n_pairs"]:
    """Return the best correlation of each pair, 1 for copies; 0 where an image is flat.

    Args:
        thumbnails: of all images.
        pairs: of their indices, in order, so that those of one image are looked at together.
    """
    if len(thumbnails) <= _READY:
        return Grain(thumbnails).likeness(pairs)
    result = np.zeros(len(pairs))
    for start in range(0, len(pairs), _PAIRS):
        some = pairs[start : start + _PAIRS]
        used, places = np.unique(some, return_inverse=True)
        result[start : start + _PAIRS] = Grain(thumbnails[used]).likeness(places.reshape(-1, 2))
    return result


class Grain:
    """The thumbnails of a set, ready to be compared in pairs."""

    def __init__(self, thumbnails: _Thumbnails) -> None:
        self._thumbnails = thumbnails
        self._whole = _grain(thumbnails.astype(np.float32))
        self._spectra = np.fft.rfft2(self._whole)
        self._squares = np.fft.rfft2(self._whole**2)
        self._parts = lru_cache(None)(self._shrunk)

    def likeness(self, pairs: Int[np.ndarray, "n_pairs 2"]) -> Float[np.ndarray, " n_pairs"]:
        """Return the best correlation of each pair, 1 for copies; 0 where an image is flat."""
        best = np.zeros(len(pairs))
        for start in range(0, len(pairs), _AT_ONCE):
            some = pairs[start : start + _AT_ONCE]
            for whole, part in (some.T, some.T[::-1]):
                for scale in _SCALES:
                    found = self._match(whole, part, scale)
                    here = slice(start, start + len(some))
                    best[here] = np.maximum(best[here], found)
        return best

    def _shrunk(self, side: int) -> _Grain:
        images = [
            np.asarray(PIL.Image.fromarray(one).resize((side, side), PIL.Image.Resampling.BOX))
            for one in self._thumbnails
        ]
        return _grain(np.stack(images).astype(np.float32))

    def _match(
        self, whole: Int[np.ndarray, " b"], part: Int[np.ndarray, " b"], scale: float
    ) -> Float[np.ndarray, " b"]:
        """Slide the shrunk `part` over `whole`; return the best correlation."""
        side = round(THUMBNAIL * scale)
        template = self._parts(side)[part]
        template = template - template.mean(axis=(1, 2), keepdims=True)
        places = THUMBNAIL - side + 1
        size = (THUMBNAIL, THUMBNAIL)
        spectrum = np.fft.rfft2(template, size)
        products = np.fft.irfft2(self._spectra[whole] * spectrum.conj(), size)
        box = np.fft.rfft2(np.ones((side, side)), size).conj()
        sums = np.fft.irfft2(self._spectra[whole] * box, size)
        squares = np.fft.irfft2(self._squares[whole] * box, size)
        inside = np.s_[:, :places, :places]
        spread = squares[inside] - sums[inside] ** 2 / side**2
        own = np.square(template).sum(axis=(1, 2))[:, None, None]
        flat = _FLAT**2 * side**2
        correlation = products[inside] / np.sqrt(np.maximum(spread, flat) * np.maximum(own, flat))
        return correlation.max(axis=(1, 2))


def _grain(images: _Grain) -> _Grain:
    """Take out what is smooth, and stripes: what runs through in one direction shifts unseen."""
    grain = images - uniform_filter(images, size=(0, _SMOOTH, _SMOOTH), mode="nearest")
    grain = grain - grain.mean(axis=1, keepdims=True)
    return grain - grain.mean(axis=2, keepdims=True)
