"""What may be wrong with a file that is accepted: told at once, as far as it costs little.

The data doctor looks closer, before a tuning or when asked to: see `app.findings`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from models.classes import normalise_name
from models.findings.blur import is_blurred
from models.findings.exposure import badly_exposed
from models.findings.traits import PixelTraits
from models.language import ENGLISH, phrase
from models.names import printable

# Bits of 64 in which the perceptual hashes of copies may differ. Photographs of a line are all
# alike: whoever looks closer, at the pixels, may allow for more.
_HASH_BITS = 4
_ENOUGH = 8  # images of a class, to say what is usual for it


class Known(NamedTuple):
    """An image that the project has: its name, its class, and what was measured."""

    file_name: str
    label: str
    group: str
    pixels: Mapping[str, Any]


class _File(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def group(self) -> str | None: ...


class Warned(Protocol):
    """A file that was checked, see `app.images.check.Checked`."""

    verdict: Any
    pixels: PixelTraits | None
    warnings: list[str]

    @property
    def file(self) -> _File:
        """What was sent."""


class _Seen(NamedTuple):
    """An image that a file may be a copy of; `key` is the normalised label."""

    name: str
    label: str
    key: str
    group: str | None


def add_warnings(checked: Sequence[Warned], known: Sequence[Known]) -> None:
    """Say of each accepted file what may be wrong with it."""
    fresh = [entry for entry in checked if entry.verdict == "accepted" and entry.pixels is not None]
    if not fresh:
        return
    seen = [_seen(one.file_name, one.label, one.group) for one in known]
    seen += [_seen(entry.file.name, entry.file.label, entry.file.group) for entry in fresh]
    measured = [PixelTraits.model_validate(one.pixels) for one in known]
    measured += [entry.pixels for entry in fresh if entry.pixels is not None]
    hashes = np.array([int(one.perceptual_hash, 16) for one in measured], dtype=np.uint64)
    sharpness = np.array([one.sharpness for one in measured])
    keys = np.array([one.key for one in seen])
    by_class = {key: sharpness[keys == key] for key in {one.key for one in seen}}
    for place, entry in enumerate(fresh, start=len(known)):
        mine, pixels = seen[place], measured[place]
        wrong = badly_exposed(pixels)
        if wrong is not None:
            entry.warnings.append(_said(f"exposure.{wrong.fault}", f"exposure.{wrong.fault}"))
        usual = by_class[mine.key]
        if wrong is None and len(usual) >= _ENOUGH and is_blurred(pixels.sharpness, usual):
            entry.warnings.append(_said("blur.said", "blur"))
        copy = _copy_of(place, hashes, seen) if wrong is None else None
        if copy is not None:
            entry.warnings.append(_copied(copy, mine))


def _said(what: str, fix: str) -> str:
    """Return what is wrong with the file, as the doctor says it of an image."""
    said = phrase(f"finding.{what}", image="The image"), phrase(f"fix.{fix}")
    return ENGLISH.worded(said)


def _seen(name: str, label: str, group: str | None) -> _Seen:
    return _Seen(name, label, normalise_name(label), group)


def _copy_of(place: int, hashes: np.ndarray, seen: Sequence[_Seen]) -> _Seen | None:
    """Return the likest of the images before this one that it may be a copy of."""
    mine = seen[place]
    differing = np.bitwise_count(hashes[:place] ^ hashes[place])
    close = np.flatnonzero(differing <= _HASH_BITS)
    for other in close[np.argsort(differing[close], kind="stable")].tolist():
        one = seen[int(other)]
        if mine.group is None or one.group != mine.group or one.key != mine.key:
            return one
    return None


def _copied(copy: _Seen, mine: _Seen) -> str:
    looks = f"The image looks like a copy of {printable(copy.name)!r}"
    if copy.key != mine.key:
        return f"{looks}, which is labelled {copy.label!r}. Decide which label is right."
    return f"{looks}. Leave it out, or give both the group of the part that they show."
