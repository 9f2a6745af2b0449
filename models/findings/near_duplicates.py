"""Images that are copies of one another although their bytes differ.

Saved anew, resized, brighter or darker, or cut by up to a fifth of a side. Which pairs are looked
at: those whose perceptual hashes are close, and each image with its nearest by features, which are
not put off by a cut. What counts is how their thumbnails correlate, see `models.findings.alike`.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8

from models.findings.alike import likeness
from models.findings.copies import copies_found
from models.findings.finding import Finding
from models.findings.subject import Subject

# Chosen on development sets, see docs/findings.md.
LIKENESS = 0.6
_HASH_BITS = 10  # of 64 that may differ for a pair to be looked at
_NEIGHBOURS = 6
_AT_ONCE = 512  # rows of a table of distances
_POPULAR = 64  # pairs looked at of one image, where many hash alike: the nearest

_Pairs = Int[np.ndarray, "n_pairs 2"]


def near_duplicates(subject: Subject) -> list[Finding]:
    """Return pairs of images that are nearly the same, the score is their likeness.

    Of many copies of one image each is shown once beside its likest, so that n of them give fewer
    than n findings; pairs that falsify most come first.
    """
    pairs, alike = near_pairs(subject)
    first, second = pairs.T
    falsifies = (subject.labels[first] != subject.labels[second]) | (
        subject.train[first] != subject.train[second]
    )
    seen: set[int] = set()
    found = []
    for place in np.lexsort((-alike, ~falsifies)):
        pair = pairs[place].tolist()
        if not seen.issuperset(pair):
            seen.update(pair)
            found.append(
                copies_found(subject, "near_duplicate", pair, min(1.0, float(alike[place])))
            )
    return [one for one in found if one is not None]


def near_pairs(subject: Subject) -> tuple[_Pairs, Float[np.ndarray, " n_pairs"]]:
    """Return the pairs of indices that are nearly the same, and how alike they are.

    Left out are the same bytes, and images of one group under one label and on one side.
    """
    if len(subject.images) < 2:
        return np.empty((0, 2), dtype=np.int64), np.zeros(0)
    hashes = _bits(subject)
    pairs = np.concatenate([_close_hashes(hashes), *_neighbours(subject)])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    first, second = pairs.T
    sha256 = np.array([image.sha256 for image in subject.images])
    expected = (
        (subject.groups[first] == subject.groups[second])
        & (subject.labels[first] == subject.labels[second])
        & (subject.train[first] == subject.train[second])
    )
    pairs = pairs[(first != second) & ~expected & (sha256[first] != sha256[second])]
    if not len(pairs):
        return pairs, np.zeros(0)
    alike = likeness(np.stack([one.thumbnail for one in subject.traits]), pairs)
    near = alike >= LIKENESS
    return pairs[near], alike[near]


def _bits(subject: Subject) -> UInt8[np.ndarray, "n 8"]:
    return np.array(
        [list(bytes.fromhex(one.pixels.perceptual_hash)) for one in subject.traits], dtype=np.uint8
    )


def _close_hashes(hashes: UInt8[np.ndarray, "n 8"]) -> _Pairs:
    """Return pairs of which at most `_HASH_BITS` bits differ, `_POPULAR` of an image at most."""
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(hashes), _AT_ONCE):
        rows = hashes[start : start + _AT_ONCE]
        differing = np.bitwise_count(rows[:, None] ^ hashes[None]).sum(axis=2, dtype=np.int64)
        differing[np.arange(len(rows)), start + np.arange(len(rows))] = 65
        kept = min(_POPULAR, len(hashes) - 1)
        nearest = np.argpartition(differing, kept - 1, axis=1)[:, :kept]
        close = np.take_along_axis(differing, nearest, axis=1) <= _HASH_BITS
        row, place = np.nonzero(close)
        found.append(np.stack([row + start, nearest[row, place]], axis=1))
    return np.concatenate(found)


def _neighbours(subject: Subject) -> Iterator[_Pairs]:
    """Yield pairs of each image with its nearest by features; of groups, of another one too."""
    features = subject.features
    if features is None:
        return
    kept = min(_NEIGHBOURS, len(features) - 1)
    for start in range(0, len(features), _AT_ONCE):
        rows = features[start : start + _AT_ONCE]
        cosine = rows @ features.T
        own = subject.groups[start : start + len(rows), None] == subject.groups[None]
        for barred in (np.eye(len(rows), len(features), start, dtype=bool), own):
            cosine[barred] = -2.0
            nearest = np.argpartition(-cosine, kept - 1, axis=1)[:, :kept]
            row = np.repeat(np.arange(start, start + len(rows)), kept)
            yield np.stack([row, nearest.ravel()], axis=1)
