import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from models.bench import archive
from models.bench.data import BenchSet, SourceRef
from models.bench.prompt_names import read_prompt_names
from models.bench.sources import read_source
from models.errors import BadDataset, BadImage, BadInput, BadName
from tests.unit.models.bench.conftest import photograph

Write = Callable[..., Path]

ROWS = [("a/0.png", "gear"), ("a/1.png", "gear"), ("b/0.png", "bolt"), ("b/1.png", "bolt")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the images of `ROWS`, for files beside it to name."""
    for label, place in enumerate("ab"):
        (tmp_path / place).mkdir()
        for number in range(2):
            (tmp_path / place / f"{number}.png").write_bytes(photograph(label, number))
    return tmp_path


def read(path: Path, **options: object) -> BenchSet:
    return read_source(SourceRef.model_validate({"path": path, **options}))


def shape(data: BenchSet) -> list[tuple[str, str, str]]:
    names = [spec.name for spec in data.dataset.classes]
    return [(image.name, names[image.label], image.split) for image in data.dataset.images]


def table(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def zhou(
    path: Path, train: list[object], test: list[object], val: list[object] | None = None
) -> Path:
    path.write_text(json.dumps({"train": train, "val": val or [], "test": test}))
    return path


def refused(path: Path, *parts: str, **options: object) -> None:
    with pytest.raises(BadInput) as caught:
        read(path, **options)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert caught.value.fix


# ------------------------------------------------------------------ folders


def test_a_folder_per_class(write_classes: Write) -> None:
    data = read(write_classes(bolt=2, gear=1))
    assert (data.name, data.split_given) == ("parts", False)
    assert shape(data) == [
        ("bolt/0.png", "bolt", "train"),
        ("bolt/1.png", "bolt", "train"),
        ("gear/0.png", "gear", "train"),
    ]


def test_an_unreadable_image_in_a_folder_is_named(write_classes: Write) -> None:
    root = write_classes(bolt=2, gear=2)
    (root / "gear/1.png").write_bytes(photograph(1, 1)[:60])
    with pytest.raises(BadImage, match=r"gear/1\.png"):
        read(root)


def test_folders_of_one_name(write_classes: Write) -> None:
    with pytest.raises(BadName, match="the same"):
        read(write_classes(bolt=1, Bolt=1))


def test_what_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "does not exist")
    (tmp_path / "parts.pkl").write_bytes(b"x")
    refused(tmp_path / "parts.pkl", ".pkl")


# ------------------------------------------------------------------ tables


def test_a_table(folder: Path) -> None:
    data = read(table(folder / "parts.csv", "path,label", *(",".join(row) for row in ROWS)))
    assert data.name == "parts"
    assert shape(data) == [(path, label, "train") for path, label in ROWS]
    assert [spec.name for spec in data.dataset.classes] == ["bolt", "gear"]


def test_a_table_with_split_and_groups(folder: Path) -> None:
    rows = ["a/0.png\tgear\ttrain\tp1", "a/1.png\tgear\ttest\t", "b/0.png\tbolt\ttrain\tp2"]
    rows += ["b/1.png\tbolt\ttest\tp3"]
    data = read(table(folder / "parts.tsv", "path\tlabel\tsplit\tgroup", *rows))
    assert data.split_given
    assert [image.split for image in data.dataset.images] == ["train", "holdout"] * 2
    groups = data.groups
    assert (groups[0], groups[2], groups[3]) == ("p1", "p2", "p3")
    assert groups[1] == data.dataset.images[1].sha256


def test_prompt_names_and_a_group_file_beside_a_table(folder: Path) -> None:
    groups = table(folder / "groups.tsv", "a/0.png\tp1", "a/1.png\tp1")
    path = table(folder / "parts.csv", "path,label", *(",".join(row) for row in ROWS))
    data = read(path, groups=groups, prompt_names={"gear": "a toothed wheel"})
    assert data.prompt_names == ["bolt", "a toothed wheel"]
    assert data.groups[:2] == ["p1", "p1"]
    refused(path, "'wheel'", "bolt, gear", prompt_names={"wheel": "x"})


@pytest.mark.parametrize(
    ("header", "rows", "parts"),
    [
        ("path,class", ["a/0.png,gear"], ["'class'", "path, label"]),
        ("path,label,label", ["a/0.png,gear,gear"], ["'label', 'label'"]),
        ("path,label", [], ["lists no images"]),
        ("path,label", ["a/0.png,"], ["Line 2"]),
        ("path,label", ["a/0.png,gear,more"], ["Line 2"]),
        ("path,label,split", ["a/0.png,gear,dev"], ["Line 2", "'dev'"]),
        ("path,label", ["a/0.png,gear", "a/9.png,gear"], ["parts.csv", "'a/9.png'", "--images"]),
        ("path,label", ["a/0.png,gear", "a/0.png,bolt"], ["lists 'a/0.png' twice", "'bolt'"]),
        ("path,label", ["a/0.png,gear", "b/0.png,Gear"], ["parts.csv", "the same"]),
        ("path,label", ["a/0.png,gear", "a/1.png,gear"], ["parts.csv", "at least 2 classes"]),
        ("path,label", ["a/0.png,gear", "b/0.png,gear", "c.png,bolt"], ["c.png"]),
        (
            "path,label,split,group",
            ["a/0.png,gear,train,p", "a/1.png,gear,test,p", "b/0.png,bolt,train,q"],
            ["group 'p'", "both sides", "a/0.png", "a/1.png"],
        ),
        (
            "path,label,split",
            ["a/0.png,gear,train", "a/1.png,gear,test", "b/0.png,bolt,train"],
            ["'bolt'", "no images to test on"],
        ),
    ],
)
def test_bad_tables(folder: Path, header: str, rows: list[str], parts: list[str]) -> None:
    refused(table(folder / "parts.csv", header, *rows), *parts)


def test_a_table_that_is_no_text(folder: Path) -> None:
    (folder / "parts.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    refused(folder / "parts.csv", "cannot be read")


def test_one_image_on_both_sides(folder: Path) -> None:
    (folder / "a/1.png").write_bytes((folder / "a/0.png").read_bytes())
    rows = ["a/0.png,gear,train", "a/1.png,gear,test", "b/0.png,bolt,train", "b/1.png,bolt,test"]
    refused(table(folder / "s.csv", "path,label,split", *rows), "the image is on both sides")


def test_one_image_under_two_labels_and_in_two_groups(folder: Path) -> None:
    (folder / "b/1.png").write_bytes((folder / "a/0.png").read_bytes())
    refused(table(folder / "s.csv", "path,label", *(",".join(row) for row in ROWS)), "'gear'")
    rows = [",".join([*row, str(number)]) for number, row in enumerate(ROWS)]
    refused(table(folder / "s.csv", "path,label,group", *rows), "in another group")


def test_an_unreadable_image_in_a_table_is_named(folder: Path) -> None:
    (folder / "b/1.png").write_bytes(b"no image")
    path = table(folder / "s.csv", "path,label", *(",".join(row) for row in ROWS))
    refused(path, "s.csv", "b/1.png", "not an image")


# ------------------------------------------------------------------ split files


def test_a_zhou_split(folder: Path) -> None:
    path = zhou(
        folder / "split_zhou_Parts.json",
        train=[["a/0.png", 1, "gear"], ["b/0.png", 0, "wing nut"]],
        test=[["a/1.png", 1, "gear"]],
        val=[["b/1.png", 0, "wing nut"]],
    )
    refused(path, "'wing nut'", "no images to test on")
    (folder / "b/2.png").write_bytes(photograph(1, 2))
    content = json.loads(path.read_text())
    content["test"].append(["b/2.png", 0, "wing nut"])
    path.write_text(json.dumps(content))
    data = read(path)
    assert data.name == "Parts"
    assert data.split_given
    assert shape(data) == [  # validation is set aside; classes are in the order of their numbers
        ("a/0.png", "gear", "train"),
        ("b/0.png", "wing nut", "train"),
        ("a/1.png", "gear", "holdout"),
        ("b/2.png", "wing nut", "holdout"),
    ]
    assert [spec.name for spec in data.dataset.classes] == ["wing nut", "gear"]


def test_images_of_a_split_in_a_folder_beside_or_given(folder: Path, tmp_path: Path) -> None:
    train: list[object] = [["0.png", 0, "gear"], ["b/0.png", 1, "bolt"]]
    files = folder / "files"
    (files / "images/b").mkdir(parents=True)
    (folder / "a/0.png").rename(files / "images/0.png")
    (folder / "b/0.png").rename(files / "images/b/0.png")
    path = zhou(files / "split_zhou_x.json", train, train)
    refused(path, "twice")
    path.write_text(json.dumps({"train": train, "test": []}))
    refused(path, "no images to test on")  # they were found
    moved = path.rename(tmp_path / "split_zhou_x.json")
    refused(moved, "no file under", "'0.png'")
    refused(moved, "no images to test on", images=files / "images")


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([["a/0.png", 0, "gear"], ["b/0.png", 1, "gear"]], ["0 and 1 are both named 'gear'"]),
        ([["a/0.png", 0, "gear"], ["b/0.png", 0, "bolt"]], ["0 is named 'gear' and 'bolt'"]),
        ([["a/0.png", 0, "gear"], ["b/9.png", 1, "bolt"]], ["split.json", "'b/9.png'"]),
        ([["a/0.png", "gear"]], ["split.json", "train.0"]),
    ],
)
def test_bad_zhou_splits(folder: Path, rows: list[object], parts: list[str]) -> None:
    refused(zhou(folder / "split.json", rows, []), *parts)


def lines(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_lines_of_json(folder: Path) -> None:
    rows = [{"_impath": path, "_label": label} for path, label in ROWS]
    assert shape(read(lines(folder / "s.jsonl", *rows))) == [(*row, "train") for row in ROWS]
    numbers = {"gear": 0, "bolt": 1}
    numbered = [
        {"_impath": path, "_label": numbers[name], "_classname": name, "_split": split}
        for (path, name), split in zip(ROWS, ["train", "test"] * 2, strict=True)
    ]
    data = read(lines(folder / "s.jsonl", *numbered))
    assert data.split_given
    assert [spec.name for spec in data.dataset.classes] == ["gear", "bolt"]


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([], ["lists no images"]),
        ([{"_impath": "a/0.png", "_label": 3}], ["Line 1", "3", "_classname"]),
        ([{"_impath": "a/0.png"}], ["in line 1", "_label"]),
        (
            [
                {"_impath": "a/0.png", "_label": "x", "_split": "train"},
                {"_impath": "b", "_label": "y"},
            ],
            ["Line 2", "no _split"],
        ),
        ([{"_impath": "a/9.png", "_label": "x"}], ["'a/9.png'"]),
    ],
)
def test_bad_lines_of_json(folder: Path, rows: list[dict[str, object]], parts: list[str]) -> None:
    refused(lines(folder / "s.jsonl", *rows), *parts)


# ------------------------------------------------------------------ archives


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def test_a_zip_is_what_its_folder_is(write_classes: Write, tmp_path: Path) -> None:
    root = write_classes(bolt=2, gear=2)
    files = {
        f"shots/{path.relative_to(root)}": path.read_bytes() for path in sorted(root.rglob("*.png"))
    }
    packed = read(pack(tmp_path / "packed.zip", files | {"__MACOSX/shots/._1.png": b"x"}))
    assert packed.digest == read(root).digest
    assert packed.dataset.images[0].read() == photograph(0, 0)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("../bolt/0.png", "points outside"),
        ("/bolt/0.png", "points outside"),
        ("C:\\bolt\\0.png", "points outside"),
        ("0.png", "in no folder"),
    ],
)
def test_names_in_a_zip(tmp_path: Path, name: str, part: str) -> None:
    refused(pack(tmp_path / "x.zip", {name: photograph(0, 0)}), "x.zip", part)


def test_two_folders_of_one_name_in_a_zip(tmp_path: Path) -> None:
    files = {"day/bolt/0.png": photograph(0, 0), "night/bolt/0.png": photograph(0, 1)}
    refused(pack(tmp_path / "x.zip", files), "two folders named 'bolt'", "night/bolt")


def test_a_zip_that_can_only_be_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bolt/0.png", bytes(1 << 20))
    refused(path, "at least 2 classes")
    monkeypatch.setattr(archive, "_HARMLESS_BYTES", 1 << 10)
    refused(path, "as no photographs do")
    monkeypatch.setattr(archive, "_MAX_IMAGE_BYTES", 1 << 10)
    monkeypatch.setattr(archive, "_MAX_RATIO", 1 << 20)
    refused(path, "has 1048576 bytes")
    monkeypatch.setattr(archive, "_MAX_FILES", 0)
    refused(path, "1 files")


def test_damaged_and_encrypted_zips(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"bolt/0.png": photograph(0, 0)})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path, "x.zip", "damaged")
    start = data.index(b"\x89PNG")
    path.write_bytes(data[: start + 40] + b"\0\0\0" + data[start + 43 :])
    refused(path, "x.zip", "damaged")
    entry = data.rindex(b"PK\x01\x02") + 8  # the flags in the central directory
    path.write_bytes(data[:entry] + b"\x01" + data[entry + 1 :])
    refused(path, "is encrypted")


# ------------------------------------------------------------------ names


def test_prompt_names(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    path.write_text("傷: a scratch\n3: 'no'\nno: three\n")
    assert read_prompt_names(path) == {"傷": "a scratch", "3": "no", "no": "three"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- a\n- b\n", "dictionary"),
        ("a: [b]\n", "string"),
        ("a: b\na: c\n", "'a' stands twice"),
        ("a: !!python/object/apply:os.getcwd []\n", "string"),
        ("a: b: c\n", "mapping values"),
    ],
)
def test_bad_prompt_names(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(text)
    with pytest.raises(BadDataset, match=r"names\.yaml") as caught:
        read_prompt_names(path)
    assert part in caught.value.problem
