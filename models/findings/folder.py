"""A folder of photographs as it is: for the data doctor, which looks at what a tuning refuses."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from models.dataset import LabelledImage, Split, check_paths
from models.errors import BadDataset
from models.litter import is_litter
from models.progress import Progress, no_progress


def read_as_it_is(
    root: Path,
    *,
    holdout: Path | None = None,
    groups: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> tuple[list[str], list[LabelledImage]]:
    """Return the classes and every file of a folder with one sub-folder per class.

    Nothing is decoded: files may be damaged, may be no images, may be there twice. Each is alone in
    its group where `groups` does not say otherwise; the same bytes are one group.

    Args:
        root: the folder; hidden files and file managers' litter are passed over, and files beside
            the sub-folders.
        holdout: another such folder, whose images are not trained on.
        groups: the group of an image, by its path under its folder.
        progress: called with how many of how many files are read.

    Raises:
        BadDataset: no folder, no classes, a folder inside a class, a group of a path that is none.
    """
    sides: list[tuple[Path, Split]] = [(root, "train")]
    if holdout is not None:
        sides.append((holdout, "holdout"))
    found = [(split, side, path) for side, split in sides for path in _files(side)]
    classes = sorted({folder.name for side, _ in sides for folder in _class_folders(side)})
    members = groups or {}
    check_paths(members, {_name(path, side) for _, side, path in found}, root)
    images = []
    for done, (split, side, path) in enumerate(found, start=1):
        name = _name(path, side)
        sha256 = _sha256(path)
        group = members.get(name, sha256 or name)
        label = classes.index(path.parent.name)
        shown = f"{side.name}/{name}" if holdout is not None else name
        images.append(LabelledImage(sha256, label, group, split, path.read_bytes, shown))
        progress(done, len(found))
    return classes, images


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _sha256(path: Path) -> str:
    """Return the digest of the bytes; empty where they cannot be read, which is a finding."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise BadDataset(
            f"{root} is not a folder.",
            fix="Name a folder that holds one sub-folder of photographs per class.",
            field="folder",
        )
    folders = [path for path in _listed(root) if path.is_dir()]
    if not folders:
        files = sum(path.is_file() for path in _listed(root))
        raise BadDataset(
            f"The folder {root} has no sub-folders"
            + (f", and {files} file(s) whose class is not known." if files else "; it is empty."),
            fix="Make one sub-folder per class, named after it, and put its photographs inside.",
            field="folder",
        )
    return folders


def _files(root: Path) -> list[Path]:
    files = []
    for folder in _class_folders(root):
        for path in _listed(folder):
            if path.is_dir():
                raise BadDataset(
                    f"The class folder {folder} holds the folder {path.name!r}, whose photographs"
                    " belong to no class.",
                    fix=f"Move them into {folder}, or make {path.name!r} a class beside it.",
                    field=folder.name,
                )
            files.append(path)
    return files


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_litter(path.name))
    except OSError as error:
        raise BadDataset(
            f"{folder} cannot be read: {error}.",
            fix="Check its permissions.",
            field=folder.name,
        ) from error
