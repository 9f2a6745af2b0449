"""Labelled photographs: read from a folder per class, checked before anything is tuned on them."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.classes import ClassSpec, check_classes, class_spec, default_role
from models.errors import BadDataset, BadImage
from models.imaging import check_image
from models.litter import is_litter
from models.progress import Progress, no_progress

Split = Literal["train", "holdout"]

# The holdout is judged on where every class has at least this many groups of images in it.
MIN_HOLDOUT_GROUPS = 5


@dataclass(frozen=True)
class LabelledImage:
    """An image, known by its content, and its label.

    Attributes:
        sha256: hexadecimal, of the bytes.
        label: index into the ordered list of classes.
        group: images of one part share it, and a split.
        split: `train`, or `holdout` for images that no tuning ever sees.
        read: returns the bytes.
        name: what people call it, such as its path.
    """

    sha256: str
    label: int
    group: str
    split: Split
    read: Callable[[], bytes]
    name: str


@dataclass(frozen=True)
class Dataset:
    """An ordered list of classes and their images."""

    classes: list[ClassSpec]
    images: list[LabelledImage]

    def counts(self) -> list[int]:
        """Return the number of images of each class."""
        labels = [image.label for image in self.images]
        return [labels.count(index) for index in range(len(self.classes))]

    def subset(self, indices: Collection[int], split: Split) -> list[LabelledImage]:
        """Return the images at `indices`, assigned to `split`."""
        return [
            LabelledImage(i.sha256, i.label, i.group, split, i.read, i.name)
            for i in (self.images[index] for index in indices)
        ]


def read_folder(
    root: Path,
    *,
    ok_names: Collection[str] = (),
    prompt_names: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> Dataset:
    """Read a folder with one sub-folder of photographs per class.

    Every file is decoded once. The same bytes twice in one class count once.

    Args:
        root: the folder; hidden files and file managers' litter in it are passed over, and files
            beside the sub-folders.
        ok_names: classes whose role is `ok`, beside the usual names of good parts.
        prompt_names: the English name of a class, by its folder's name.
        groups: the group of an image, by its path under `root`; alone in its own where absent.
        progress: called with how many of how many files are read.

    Raises:
        BadDataset: no folder, no classes, fewer than two, an empty class, a folder inside a class,
            one image under two labels or in two groups, a group for a path that is no image.
        BadImage: a file that is not a whole image; its path is named.
        BadName: a class name that cannot be used.
    """
    folders = _class_folders(root)
    prompts = prompt_names or {}
    _refuse_unknown(prompts, [folder.name for folder in folders], "prompt name")
    _refuse_unknown(ok_names, [folder.name for folder in folders], "ok class")
    classes = [
        class_spec(
            folder.name,
            prompt_name=prompts.get(folder.name),
            role=default_role(folder.name, ok_names),
        )
        for folder in folders
    ]
    check_classes(classes)
    files = [(label, path) for label, folder in enumerate(folders) for path in _files(folder)]
    members = groups or {}
    check_paths(members, {path.relative_to(root).as_posix() for _, path in files}, root)
    images = []
    for done, (label, path) in enumerate(files, start=1):
        images.append(_read_image(path, root, label, members))
        progress(done, len(files))
    _check_groups(images)
    dataset = Dataset(classes, drop_repeats(images, classes))
    for spec, count in zip(classes, dataset.counts(), strict=True):
        if count == 0:
            raise BadDataset(
                f"The class {spec.name!r} has no images.",
                fix=f"Put photographs into {root / spec.name}, or remove the folder.",
                field=spec.name,
            )
    return dataset


def read_groups(path: Path) -> dict[str, str]:
    """Read a group file: a line per image, its path and its group, separated by a tab.

    Raises:
        BadDataset: the file is missing, a line is no path and group, or two have one path.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataset(
            f"The group file {path} cannot be read: {error}.",
            fix="Give a UTF-8 text file with a path, a tab and a group on each line.",
            field="groups",
        ) from error
    groups: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        columns = line.split("\t")
        if len(columns) != 2 or not all(columns):
            raise BadDataset(
                f"Line {number} of {path} is {line!r}; a path, a tab and a group are expected.",
                fix="Write a path, a tab and a group on each line.",
                field="groups",
            )
        name, group = columns
        if name in groups:
            raise BadDataset(
                f"Line {number} of {path} names {name!r} a second time.",
                fix="Give each image one line, with the part that it shows.",
                field="groups",
            )
        groups[name] = group
    return groups


def check_images(classes: Sequence[ClassSpec], images: Sequence[LabelledImage]) -> None:
    """Refuse images that a tuning could neither learn from nor be measured on.

    Raises:
        BadDataset: a class without training images, or, where the holdout does not count, with
            fewer than two groups of them; one image under two labels or in two groups; a group on
            both sides of the split.
    """
    check_classes(classes)
    drop_repeats(images, classes)
    _check_groups(images)
    groups = _groups(classes, images, "train")
    needed = 1 if has_holdout(classes, images) else 2
    for label, spec in enumerate(classes):
        if len(groups[label]) < needed:
            count = sum(image.label == label and image.split == "train" for image in images)
            why = ", one to tune on and one to check" if needed == 2 else ""
            raise BadDataset(
                f"The class {spec.name!r} has {count} training image(s) of {len(groups[label])}"
                f" part(s); images of at least {needed} part{'s' * (needed > 1)} are needed{why}.",
                fix=f"Add photographs of {spec.name!r}, or remove the class.",
                field=spec.name,
            )


def has_holdout(classes: Sequence[ClassSpec], images: Sequence[LabelledImage]) -> bool:
    """Say whether a tuning is measured on the `holdout` images, not inside the training images."""
    return all(len(groups) >= MIN_HOLDOUT_GROUPS for groups in _groups(classes, images, "holdout"))


def _groups(
    classes: Sequence[ClassSpec], images: Sequence[LabelledImage], split: Split
) -> list[set[str]]:
    """Return the groups of each class that are on that side of the split."""
    groups: list[set[str]] = [set() for _ in classes]
    for image in images:
        if image.split == split:
            groups[image.label].add(image.group)
    return groups


def _check_groups(images: Sequence[LabelledImage]) -> None:
    """Refuse images that could be tuned on and measured on at once."""
    splits: dict[str, Split] = {}
    first: dict[str, LabelledImage] = {}
    for image in images:
        other = first.setdefault(image.sha256, image)
        if other.group != image.group:
            raise BadDataset(
                f"The same image is in the groups {other.group!r} ({other.name}) and"
                f" {image.group!r} ({image.name}).",
                fix="Give it once, with the group of the part that it shows.",
                field="group",
            )
        if splits.setdefault(image.group, image.split) != image.split:
            raise BadDataset(
                f"The group {image.group!r} has images in train and in holdout.",
                fix="Put all images of one part on one side of the split.",
                field="group",
            )


def snapshot_digest(classes: Sequence[ClassSpec], images: Sequence[LabelledImage]) -> str:
    """Return `sha256:` over the classes in order and the (image, label, group, split) as a set."""
    rows = sorted((image.sha256, image.label, image.group, image.split) for image in images)
    content = json.dumps([[spec.model_dump() for spec in classes], rows], ensure_ascii=False)
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise BadDataset(
            f"{root} is not a folder.",
            fix="Name a folder that holds one sub-folder of photographs per class.",
            field="folder",
        )
    folders = sorted(path for path in _visible(root) if path.is_dir())
    if not folders:
        raise BadDataset(
            f"The folder {root} has no sub-folders.",
            fix="Make one sub-folder per class, named after it, and put its photographs inside.",
            field="folder",
        )
    return folders


def _visible(folder: Path) -> Iterator[Path]:
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error, folder.name) from error
    return (path for path in paths if not is_litter(path.name))


def _files(folder: Path) -> list[Path]:
    paths = sorted(_visible(folder))
    for path in paths:
        if path.is_dir():
            raise BadDataset(
                f"The class folder {folder} holds the folder {path.name!r}, whose photographs"
                " belong to no class.",
                fix=f"Move them into {folder}, or make {path.name!r} a class beside it.",
                field=folder.name,
            )
    return [path for path in paths if path.is_file()]


def check_paths(groups: Collection[str], known: Collection[str], root: Path) -> None:
    """Refuse groups of paths that are no image.

    Raises:
        BadDataset: a path that is not among the `known` ones under `root`.
    """
    unknown = [name for name in groups if name not in known]
    if unknown:
        raise BadDataset(
            f"A group is given for {unknown[0]!r}, which is no image under {root}"
            f" ({len(unknown)} of {len(groups)} such paths).",
            fix="Write paths from that folder with forward slashes, such as scratch/0001.jpg.",
            field="groups",
        )


def _refuse_unknown(given: Collection[str], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise BadDataset(
                f"The {what} {name!r} belongs to no class folder.",
                fix=f"The folders are: {', '.join(known)}.",
                field=name,
            )


def _read_image(path: Path, root: Path, label: int, groups: Mapping[str, str]) -> LabelledImage:
    name = path.relative_to(root).as_posix()
    try:
        facts = check_image(path.read_bytes())
    except BadImage as error:
        raise BadImage(
            f"{path}: {error.problem}", fix=error.fix, field=name, fault=error.fault
        ) from error
    except OSError as error:
        raise _unreadable(path, error, name) from error
    group = groups.get(name, facts.sha256)
    return LabelledImage(facts.sha256, label, group, "train", path.read_bytes, name)


def _unreadable(path: Path, error: OSError, field: str) -> BadDataset:
    return BadDataset(f"{path} cannot be read: {error}.", fix="Check its permissions.", field=field)


def drop_repeats(
    images: Sequence[LabelledImage], classes: Sequence[ClassSpec]
) -> list[LabelledImage]:
    """Keep the first of the images with the same bytes.

    Raises:
        BadDataset: the same image under two labels.
    """
    first: dict[str, LabelledImage] = {}
    for image in images:
        other = first.setdefault(image.sha256, image)
        if other.label != image.label:
            raise BadDataset(
                f"The same image is labelled {classes[other.label].name!r} ({other.name}) and"
                f" {classes[image.label].name!r} ({image.name}).",
                fix="Remove it from the class that it does not belong to.",
                field=image.name,
            )
    return list(first.values())
