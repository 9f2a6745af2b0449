"""What a file says of images, and the data set that it becomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from models.classes import ClassSpec, check_classes, class_spec
from models.dataset import Dataset, LabelledImage, check_paths, drop_repeats
from models.errors import BadDataset, BadImage, BadName, ShotlineError
from models.imaging import check_image
from models.progress import Progress, no_progress

Part = Literal["train", "val", "test"]

_PARTS: dict[str, Part] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "holdout": "test",
}


@dataclass(frozen=True)
class ListedImage:
    """An image as a file lists it.

    Attributes:
        name: its path, as the file writes it.
        label: the name of its class.
        read: returns the bytes.
        part: of a given split.
        group: images of one part share it.
    """

    name: str
    label: str
    read: Callable[[], bytes]
    part: Part | None = None
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """A file's images, and its classes in order."""

    source: Path
    class_names: list[str]
    images: list[ListedImage]

    @cached_property
    def split_given(self) -> bool:
        """Whether the file says which images are to be tested on."""
        return any(image.part is not None for image in self.images)


def read_part(text: str, source: Path, where: str) -> Part:
    """Read the name of a part of a split.

    Raises:
        BadDataset: another name.
    """
    part = _PARTS.get(text.strip().lower())
    if part is None:
        raise BadDataset(
            f"{where} of {source} has the split {text!r}.",
            fix=f"Write one of: {', '.join(_PARTS)}.",
            field="split",
        )
    return part


def find_root(source: Path, images: Path | None, paths: Sequence[str]) -> Path:
    """Return the folder that the paths in a file begin at: the one given, or one beside the file.

    Raises:
        BadDataset: a path that is no file under any of them.
    """
    beside = (source.parent, source.parent / "images", source.parent / source.stem)
    roots = [images] if images is not None else list(beside)
    root = next((root for root in roots if paths and (root / paths[0]).is_file()), roots[0])
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        raise BadDataset(
            f"{source} names {missing[0]!r}, which is no file under {root}"
            f" ({len(missing)} of {len(paths)} such paths).",
            fix="Put the images there, correct the paths, or name their folder with --images.",
            field="images",
        )
    return root


def assemble(
    listing: Listing,
    *,
    prompt_names: Mapping[str, str],
    groups: Mapping[str, str] | None,
    progress: Progress = no_progress,
) -> Dataset:
    """Decode every image once, and check all that `models.dataset.read_folder` would.

    Raises:
        BadDataset: see `models.bench.sources.read_source`.
        BadImage: a file that is not a whole image.
    """
    classes = _classes(listing, prompt_names)
    _check_listed_once(listing)
    if groups is not None:
        check_paths(groups, {image.name for image in listing.images}, listing.source)
    labels = {name: label for label, name in enumerate(listing.class_names)}
    images = []
    for done, image in enumerate(listing.images, start=1):
        group = (groups or {}).get(image.name, image.group)
        images.append((image.part, _read(image, labels[image.label], group, listing.source)))
        progress(done, len(listing.images))
    _check_sides(images, listing.source)
    kept = drop_repeats([image for part, image in images if part != "val"], classes)
    dataset = Dataset(classes, kept)
    _check_counts(dataset, listing)
    return dataset


def _classes(listing: Listing, prompt_names: Mapping[str, str]) -> list[ClassSpec]:
    unknown = [name for name in prompt_names if name not in listing.class_names]
    if unknown:
        raise BadDataset(
            f"The prompt name of {unknown[0]!r} belongs to no class of {listing.source}.",
            fix=f"The classes are: {', '.join(listing.class_names)}.",
            field=unknown[0],
        )
    try:
        classes = [class_spec(n, prompt_name=prompt_names.get(n)) for n in listing.class_names]
        check_classes(classes)
    except (BadName, BadDataset) as error:
        raise _of(listing.source, error) from error
    return classes


def _check_listed_once(listing: Listing) -> None:
    first: dict[str, ListedImage] = {}
    for image in listing.images:
        other = first.setdefault(image.name, image)
        if other is not image:
            raise BadDataset(
                f"{listing.source} lists {image.name!r} twice ({_place(other)} and"
                f" {_place(image)}).",
                fix="List each image once.",
                field=image.name,
            )


def _place(image: ListedImage) -> str:
    return f"as {image.label!r}" + (f" in {image.part}" if image.part else "")


def _read(image: ListedImage, label: int, group: str | None, source: Path) -> LabelledImage:
    try:
        facts = check_image(image.read())
    except BadImage as error:
        raise BadImage(
            f"{source}: {image.name}: {error.problem}", fix=error.fix, field=image.name
        ) from error
    except OSError as error:
        raise BadDataset(
            f"{source}: {image.name} cannot be read: {error}.",
            fix="Check its permissions.",
            field=image.name,
        ) from error
    split: Literal["train", "holdout"] = "holdout" if image.part == "test" else "train"
    return LabelledImage(facts.sha256, label, group or facts.sha256, split, image.read, image.name)


def _check_sides(images: Sequence[tuple[Part | None, LabelledImage]], source: Path) -> None:
    """Refuse one part's images in training and in the test; validation is used for neither."""
    first: dict[str, LabelledImage] = {}
    groups: dict[str, str] = {}
    for part, image in images:
        if groups.setdefault(image.sha256, image.group) != image.group:
            raise BadDataset(
                f"{source}: {image.name} is the same image as another, in another group"
                f" ({groups[image.sha256]!r} and {image.group!r}).",
                fix="List it once, with the group of the part that it shows.",
                field="group",
            )
        if part == "val":
            continue
        other = first.setdefault(image.group, image)
        if other.split != image.split:
            what = "image" if image.group == image.sha256 else f"group {image.group!r}"
            raise BadDataset(
                f"{source}: the {what} is on both sides of the split ({other.name} and"
                f" {image.name}).",
                fix="Put all images of one part on one side of the split.",
                field="group",
            )


def _check_counts(dataset: Dataset, listing: Listing) -> None:
    sides: tuple[Literal["train", "holdout"], ...] = ("train", "holdout")
    for side in sides if listing.split_given else sides[:1]:
        present = {image.label for image in dataset.images if image.split == side}
        for label, spec in enumerate(dataset.classes):
            if label not in present:
                raise BadDataset(
                    f"{listing.source}: the class {spec.name!r} has no images to"
                    f" {'train on' if side == 'train' else 'test on'}.",
                    fix="Add some, or remove the class.",
                    field=spec.name,
                )


def _of(source: Path, error: ShotlineError) -> BadDataset:
    return BadDataset(f"{source}: {error.problem}", fix=error.fix, field=error.field)
