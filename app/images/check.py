"""The verdict on each file of an upload: hashed, compared, decoded, and only then stored."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from sqlalchemy.orm import Session

from app.core.disk import Puts
from app.core.errors import Conflict
from app.core.settings import LimitSettings
from app.core.tables import Image, Split
from app.images import repository
from app.images.incoming import IncomingFile
from app.images.warnings import Known, add_warnings
from models.classes import normalise_name
from models.errors import BadImage, ShotlineError
from models.findings.traits import PixelTraits, measure_pixels
from models.imaging import ImageFacts, check_and_decode
from models.names import printable

Verdict = Literal["accepted", "duplicate", "rejected"]


@dataclass
class Checked:
    """A file and what was found of it.

    Attributes:
        existing: the image that a duplicate repeats.
        kept: what of that image stays although the file came with something else.
        pixels: what was measured of an accepted file.
        warnings: what may be wrong with an accepted file, in sentences.
    """

    file: IncomingFile
    sha256: str = ""
    size: int = 0
    facts: ImageFacts | None = None
    verdict: Verdict = "accepted"
    problem: ShotlineError | None = None
    existing: UUID | None = None
    kept: str | None = None
    pixels: PixelTraits | None = None
    warnings: list[str] = field(default_factory=list)

    def reject(self, problem: ShotlineError) -> None:
        """Reject the file for `problem`."""
        self.verdict, self.problem = "rejected", problem

    def meet(self, image: Image, label: str) -> None:
        """Compare with an image of the same bytes that the project has under `label`."""
        if normalise_name(label) == normalise_name(self.file.label):
            self.verdict, self.existing = "duplicate", image.id
            self.kept = _kept(image, self.file)
        else:
            self.reject(two_labels(image.file_name, label, self.file.label))


def check_files(
    reader: Session,
    storage: Puts,
    limits: LimitSettings,
    project_id: UUID,
    files: Sequence[IncomingFile],
    label_of: Callable[[UUID], str],
) -> list[Checked]:
    """Reach a verdict on each file and store the bytes of those that are accepted.

    Every file is read twice: what bytes come under two labels must be known before any are stored.

    Args:
        reader: a session that only reads; its transaction is ended before the decoding starts.
        storage: where accepted bytes go.
        limits: on bytes and pixels.
        project_id: the project.
        files: in the order of the upload.
        label_of: a class's name by its id.

    Raises:
        StorageFull: no space is left.
    """
    checked = [_hash(file, limits.file_bytes) for file in files]
    _refuse_two_labels(checked)
    _compare(reader, project_id, checked, label_of)
    known = [
        Known(row.file_name, row.label, row.group, row.pixels)
        for row in repository.measured(reader, project_id)
    ]
    reader.rollback()
    for entry in checked:
        if entry.verdict == "accepted":
            _decode_and_store(entry, storage, limits)
        elif entry.existing is not None:  # heals what is stored, where that is damaged or gone
            storage.put(entry.file.content(limits.file_bytes))
    _follow_first(checked)
    add_warnings(checked, known)
    return checked


def compare_again(
    session: Session, project_id: UUID, checked: Sequence[Checked], label_of: Callable[[UUID], str]
) -> None:
    """See what other uploads brought while this one was checked.

    Args:
        session: its transaction holds the project locked.
        project_id: the project.
        checked: what `check_files` returned.
        label_of: a class's name by its id.
    """
    _compare(session, project_id, [e for e in checked if e.existing is None], label_of)
    _follow_first(checked)


def two_labels(name: str, one: str, other: str) -> Conflict:
    """Return the error for the same bytes under two labels."""
    return Conflict(
        f"The same image is labelled {one!r} ({printable(name)!r}) and {other!r}.",
        fix="Decide which label is right, and delete or relabel the other.",
        field="label",
    )


def _hash(file: IncomingFile, limit: int) -> Checked:
    entry = Checked(file)
    try:
        data = file.content(limit)
    except ShotlineError as problem:
        entry.reject(problem)
        return entry
    entry.sha256, entry.size = hashlib.sha256(data).hexdigest(), len(data)
    return entry


def _kept(image: Image, file: IncomingFile) -> str | None:
    if image.split != file.split:
        return f"The image is in {image.split} and stays there."
    if file.group is not None and file.group != image.group:
        return f"The image is of the group {image.group!r} and stays in it."
    return None


def _refuse_two_labels(checked: Sequence[Checked]) -> None:
    """Reject every file whose bytes come under two labels: neither can be trusted."""
    same: dict[str, list[Checked]] = defaultdict(list)
    for entry in checked:
        if entry.verdict == "accepted":
            same[entry.sha256].append(entry)
    for entries in same.values():
        first = entries[0]
        others = [e for e in entries if _key(e) != _key(first)]
        for entry in entries if others else ():
            other = others[0] if _key(entry) == _key(first) else first
            entry.reject(two_labels(other.file.name, other.file.label, entry.file.label))


def _key(entry: Checked) -> str:
    return normalise_name(entry.file.label)


def _compare(
    reader: Session, project_id: UUID, checked: Sequence[Checked], label_of: Callable[[UUID], str]
) -> None:
    """Find what the project has already, repeats within the upload, and groups on both sides."""
    known = repository.known(reader, project_id, [e.sha256 for e in checked if e.sha256])
    splits = _splits(reader, project_id, checked)
    seen: set[str] = set()
    for entry in checked:
        if entry.verdict == "rejected":
            continue
        if entry.sha256 in known:
            image = known[entry.sha256]
            entry.meet(image, label_of(image.class_id))
        elif entry.sha256 in seen:
            entry.verdict = "duplicate"
        else:
            seen.add(entry.sha256)
            _check_group(entry, splits)


def _splits(reader: Session, project_id: UUID, checked: Sequence[Checked]) -> dict[str, Split]:
    groups = [entry.file.group for entry in checked if entry.file.group is not None]
    return repository.splits_of_groups(reader, project_id, groups)


def _check_group(entry: Checked, splits: dict[str, Split]) -> None:
    group = entry.file.group
    if group is None:
        return
    there = splits.setdefault(group, entry.file.split)
    if there != entry.file.split:
        entry.reject(
            Conflict(
                f"The group {group!r} is in {there}; this image of it came for {entry.file.split}.",
                fix="Send all images of one part to one side of the split.",
                field="group",
            )
        )


def _decode_and_store(entry: Checked, storage: Puts, limits: LimitSettings) -> None:
    try:
        data = entry.file.content(limits.file_bytes)
        entry.facts, photograph = check_and_decode(data, max_pixels=limits.image_pixels)
        entry.pixels = measure_pixels(photograph)
    except (BadImage, Conflict) as problem:
        entry.reject(problem)
        return
    storage.put(data)


def _follow_first(checked: Sequence[Checked]) -> None:
    """Reject repeats of a file that turned out to be bad."""
    bad: Mapping[str, ShotlineError] = {
        entry.sha256: entry.problem
        for entry in checked
        if entry.problem is not None and entry.sha256
    }
    for entry in checked:
        if entry.verdict == "duplicate" and entry.existing is None and entry.sha256 in bad:
            entry.reject(bad[entry.sha256])
