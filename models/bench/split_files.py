"""The split files of prompt tuning's own code: CoOp's `split_zhou_*.json`, and lines of JSON.

Classes keep the order of their numbers, as that code has it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.bench.listing import ListedImage, Listing, find_root, read_part
from models.errors import BadDataset

# path, number of the class, name of the class
_Row = tuple[str, int, str]


class _Zhou(BaseModel):
    model_config = ConfigDict(extra="forbid")

    train: list[_Row]
    val: list[_Row] = []
    test: list[_Row]


class _Line(BaseModel):
    impath: str = Field(alias="_impath", min_length=1)
    label: str | int = Field(alias="_label")
    classname: str | None = Field(None, alias="_classname")
    split: str | None = Field(None, alias="_split")
    group: str | None = Field(None, alias="_group")


def list_zhou(path: Path, images: Path | None) -> Listing:
    """List the images of `{"train": [[path, number, name], …], "val": …, "test": …}`.

    Raises:
        BadDataset: not of that form, two names of one number, two numbers of one name, or a
            missing file.
    """
    try:
        split = _Zhou.model_validate_json(_read(path))
    except ValidationError as error:
        raise _malformed(path, "as a whole", error) from error
    parts: dict[Literal["train", "val", "test"], list[_Row]] = {
        "train": split.train,
        "val": split.val,
        "test": split.test,
    }
    rows = [row for part in parts.values() for row in part]
    names = _class_names(path, [(number, name) for _, number, name in rows])
    root = find_root(path, images, [row[0] for row in rows])
    listed = [
        ListedImage(image, name, (root / image).read_bytes, part)
        for part, members in parts.items()
        for image, _, name in members
    ]
    return Listing(path, names, listed)


def list_lines(path: Path, images: Path | None) -> Listing:
    """List the images of lines such as `{"_impath": "a/1.jpg", "_label": "scratch"}`.

    A `_label` that is a number needs the name beside it in `_classname`; `_split` and `_group` may
    follow.

    Raises:
        BadDataset: not of that form, or as `list_zhou`.
    """
    lines = list(_lines(path))
    if not lines:
        raise BadDataset(
            f"{path} lists no images.", fix="Give each image a line of its own.", field="folder"
        )
    splits = {line.split is not None for _, line in lines}
    if len(splits) > 1:
        number = next(number for number, line in lines if line.split is None)
        raise BadDataset(
            f"Line {number} of {path} has no _split, and others have.",
            fix="Give every line a _split, or none.",
            field="split",
        )
    names = _names_of_lines(path, lines)
    root = find_root(path, images, [line.impath for _, line in lines])
    listed = [
        ListedImage(
            name=line.impath,
            label=_name(line),
            read=(root / line.impath).read_bytes,
            part=None if line.split is None else read_part(line.split, path, f"Line {number}"),
            group=line.group,
        )
        for number, line in lines
    ]
    return Listing(path, names, listed)


def _lines(path: Path) -> Iterator[tuple[int, _Line]]:
    for number, text in enumerate(_read(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = _Line.model_validate_json(text)
        except ValidationError as error:
            raise _malformed(path, f"in line {number}", error) from error
        if isinstance(line.label, int) and line.classname is None:
            raise BadDataset(
                f"Line {number} of {path} has the _label {line.label}, a number without a name.",
                fix="Write the class's name as _label, or beside it as _classname.",
                field="label",
            )
        yield number, line


def _name(line: _Line) -> str:
    return line.classname if line.classname is not None else str(line.label)


def _names_of_lines(path: Path, lines: Sequence[tuple[int, _Line]]) -> list[str]:
    numbered = [(line.label, _name(line)) for _, line in lines if isinstance(line.label, int)]
    if len(numbered) == len(lines):
        return _class_names(path, numbered)
    return sorted({_name(line) for _, line in lines})


def _class_names(path: Path, pairs: Sequence[tuple[int, str]]) -> list[str]:
    """Return the names in the order of their numbers; each number has one name, and each name one.

    Two classes of one name would be one to the text encoder, and the results of two be lost.
    """
    names: dict[int, str] = {}
    numbers: dict[str, int] = {}
    for number, name in pairs:
        if names.setdefault(number, name) != name:
            raise _duplicate(path, f"the class {number} is named {names[number]!r} and {name!r}")
        if numbers.setdefault(name, number) != number:
            both = f"{numbers[name]} and {number}"
            raise _duplicate(path, f"the classes {both} are both named {name!r}")
    return [names[number] for number in sorted(names)]


def _duplicate(path: Path, what: str) -> BadDataset:
    return BadDataset(
        f"In {path} {what}.", fix="Give each class one number and a name of its own.", field="label"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataset(
            f"{path} cannot be read: {error}.", fix="Give a UTF-8 text file.", field="folder"
        ) from error


def _malformed(path: Path, where: str, error: ValidationError) -> BadDataset:
    first: Mapping[str, Any] = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return BadDataset(
        f"{path} is not of the form expected, {where}: {place or 'the text'}: {first['msg']}.",
        fix='Write {"train": [[path, number, name], …], "val": …, "test": …}, or in a .jsonl lines'
        ' such as {"_impath": "a/1.jpg", "_label": "scratch"}.',
        field="folder",
    )
