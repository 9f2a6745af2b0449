"""Where labelled photographs come from: the forms that are read, told apart by their names."""

from collections.abc import Callable
from pathlib import Path

from models.bench.archive import list_zip
from models.bench.data import BenchSet, SourceRef
from models.bench.listing import Listing, assemble
from models.bench.split_files import list_lines, list_zhou
from models.bench.tables import list_table
from models.dataset import read_folder, read_groups
from models.errors import BadDataset
from models.progress import Progress, no_progress

_FORMS: dict[str, Callable[[Path, Path | None], Listing]] = {
    ".csv": list_table,
    ".tsv": list_table,
    ".json": list_zhou,
    ".jsonl": list_lines,
}


def read_source(ref: SourceRef, progress: Progress = no_progress) -> BenchSet:
    """Read a data set, and decode every image of it once.

    A folder or a zip holds one folder of photographs per class; a CSV or TSV has the columns
    `path` and `label`, and perhaps `split` and `group`; a `.json` is one of CoOp's
    `split_zhou_*.json`; each line of a `.jsonl` has `_impath` and `_label`.

    Raises:
        BadDataset: it cannot be read, names what is not there, has fewer than two classes, classes
            of one name, a class without enough images, one image under two labels, or a group on
            both sides of its split.
        BadImage: a file that is not a whole image; its path is named.
        BadName: a folder's name that cannot be used.
    """
    groups = None if ref.groups is None else read_groups(ref.groups)
    if ref.path.is_dir():
        dataset = read_folder(
            ref.path, prompt_names=ref.prompt_names, groups=groups, progress=progress
        )
        return BenchSet(ref.name, dataset)
    if not ref.path.exists():
        raise BadDataset(
            f"{ref.path} does not exist.",
            fix="Name a folder with one sub-folder of photographs per class, a zip of one, a"
            " CSV or TSV, a split_zhou_*.json, or a .jsonl.",
            field="folder",
        )
    listing = _list(ref)
    dataset = assemble(listing, prompt_names=ref.prompt_names, groups=groups, progress=progress)
    return BenchSet(ref.name, dataset, listing.split_given)


def _list(ref: SourceRef) -> Listing:
    ending = ref.path.suffix.lower()
    if ending == ".zip":
        return list_zip(ref.path)
    if ending not in _FORMS:
        raise BadDataset(
            f"{ref.path} ends with {ending!r}, which is none of .zip, {', '.join(_FORMS)}.",
            fix="Name a folder, or a file of one of these forms.",
            field="folder",
        )
    return _FORMS[ending](ref.path, ref.images)
