"""A folder of labelled photographs: read whole, or refused with what is wrong with it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from models.artifact import Artifact
from models.classes import class_spec
from models.dataset import (
    Dataset,
    LabelledImage,
    Split,
    check_images,
    has_holdout,
    read_folder,
    read_groups,
    snapshot_digest,
)
from models.errors import BadDataset, BadImage, BadName
from tests.unit.models.conftest import CLASSES, draw_images, encode, labelled, noise_image

Photographs = Callable[..., Path]


def test_a_folder_is_read(photographs: Photographs) -> None:
    root = photographs()
    dataset = read_folder(root)

    assert [spec.name for spec in dataset.classes] == ["good", "scratch", "stain"]
    assert [spec.role for spec in dataset.classes] == ["ok", "ng", "ng"]
    assert dataset.counts() == [4, 4, 4]
    first = dataset.images[0]
    data = (root / "good" / "0.png").read_bytes()
    assert (first.name, first.label, first.split) == ("good/0.png", 0, "train")
    assert first.sha256 == hashlib.sha256(data).hexdigest()
    assert first.group == first.sha256
    assert first.read() == data
    check_images(dataset.classes, dataset.images)


def test_roles_and_prompt_names_can_be_given(photographs: Photographs) -> None:
    root = photographs("blank", "きず")
    dataset = read_folder(root, ok_names=["blank"], prompt_names={"きず": "scratch"})

    assert [(spec.name, spec.prompt_name, spec.role) for spec in dataset.classes] == [
        ("blank", "blank", "ok"),
        ("きず", "scratch", "ng"),
    ]


def test_progress_is_told_of_every_file(photographs: Photographs) -> None:
    told: list[tuple[int, int]] = []

    read_folder(photographs(n=2), progress=lambda *at: told.append(at))
    assert told == [(done, 6) for done in range(1, 7)]


def test_litter_is_passed_over(photographs: Photographs) -> None:
    root = photographs()
    for name in ("Thumbs.db", "good/.DS_Store", "good/desktop.ini", ".hidden", "readme.txt"):
        (root / name).write_bytes(b"no image")
    for name in (".git", "good/.thumbnails"):
        (root / name).mkdir()

    assert read_folder(root).counts() == [4, 4, 4]


def test_a_folder_inside_a_class_is_not_passed_over(photographs: Photographs) -> None:
    root = photographs()
    (root / "good" / "more").mkdir()

    with pytest.raises(BadDataset, match=rf"{root}/good holds the folder 'more'") as caught:
        read_folder(root)
    assert f"Move them into {root}/good" in caught.value.fix


def test_a_repeated_image_counts_once(photographs: Photographs) -> None:
    root = photographs()
    (root / "good" / "copy.png").write_bytes((root / "good" / "0.png").read_bytes())

    dataset = read_folder(root)
    assert dataset.counts() == [4, 4, 4]
    assert dataset.images[0].name == "good/0.png"


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="nowhere is not a folder"):
        read_folder(tmp_path / "nowhere")


def test_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photographs.zip").write_bytes(b"PK")
    with pytest.raises(BadDataset, match=r"photographs\.zip is not a folder"):
        read_folder(tmp_path / "photographs.zip")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="has no sub-folders") as caught:
        read_folder(tmp_path)
    assert "one sub-folder per class" in caught.value.fix


def test_a_folder_that_may_not_be_listed(
    photographs: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photographs()

    def iterdir(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(BadDataset, match=r"cannot be read: .*Permission denied") as caught:
        read_folder(root)
    assert "permissions" in caught.value.fix


def test_one_class(photographs: Photographs) -> None:
    with pytest.raises(BadDataset, match=r"at least 2 classes; found 1 \('good'\)"):
        read_folder(photographs("good"))


def test_a_class_without_images(photographs: Photographs) -> None:
    root = photographs()
    (root / "crack").mkdir()
    (root / "crack" / ".gitkeep").write_bytes(b"")

    with pytest.raises(BadDataset, match="The class 'crack' has no images") as caught:
        read_folder(root)
    assert str(root / "crack") in caught.value.fix
    assert caught.value.field == "crack"


def test_names_that_are_one_after_normalisation(photographs: Photographs) -> None:
    with pytest.raises(BadName, match="'Scratch_A' and 'scratch a'"):
        read_folder(photographs("Scratch_A", "scratch a", n=1))


def test_prompt_names_that_are_one(photographs: Photographs) -> None:
    with pytest.raises(BadName, match="prompt_names 'scratch' and 'Scratch'"):
        read_folder(photographs("a", "b", n=1), prompt_names={"a": "scratch", "b": "Scratch"})


def test_the_same_image_under_two_labels(photographs: Photographs) -> None:
    root = photographs()
    (root / "stain" / "x.png").write_bytes((root / "good" / "1.png").read_bytes())

    with pytest.raises(BadDataset, match="The same image is labelled 'good'") as caught:
        read_folder(root)
    assert "good/1.png" in caught.value.problem
    assert "stain/x.png" in caught.value.problem


@pytest.mark.parametrize("data", [b"no image", b"", encode(noise_image(0, (9, 9, 9)))[:200]])
def test_not_an_image_inside(photographs: Photographs, data: bytes) -> None:
    root = photographs()
    (root / "good" / "notes.png").write_bytes(data)

    with pytest.raises(BadImage, match=r"notes\.png: The (file|image)") as caught:
        read_folder(root)
    assert str(root) in caught.value.problem
    assert caught.value.field == "good/notes.png"


def test_an_image_that_may_not_be_read(
    photographs: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_bytes(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    root = photographs()
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(BadDataset, match=r"0\.png cannot be read: .*Permission denied"):
        read_folder(root)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"prompt_names": {"Good": "a good part"}}, "prompt name 'Good'"),
        ({"ok_names": ["fine"]}, "ok class 'fine'"),
    ],
)
def test_names_that_no_folder_has(
    photographs: Photographs, given: dict[str, object], what: str
) -> None:
    with pytest.raises(BadDataset, match=f"The {what} belongs to no class folder") as caught:
        read_folder(photographs(), **given)
    assert "good, scratch, stain" in caught.value.fix


@pytest.mark.parametrize("names", [("良品", "きず 🔥"), ("good", "🧯"), ("ok", "déchiré")])
def test_names_of_any_script_from_folder_to_artifact(
    photographs: Photographs, tune: Callable[..., Artifact], names: tuple[str, str]
) -> None:
    dataset = read_folder(photographs(*names, n=2))
    artifact = tune(dataset.classes, dataset.images)

    again = Artifact.from_bytes(artifact.to_bytes())
    assert {spec.name for spec in again.header.classes} == set(names)
    assert again.digest == artifact.digest


TSV = "good/0.png\tpart 1\ngood/1.png\tpart 1\nstain/0.png\t部品 2\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(TSV, "utf-8"), (TSV.rstrip(), "utf-8"), (TSV.replace("\n", "\r\n"), "utf-8-sig")],
)
def test_groups_are_given_by_path(
    photographs: Photographs, tmp_path: Path, text: str, encoding: str
) -> None:
    root, path = photographs(), tmp_path / "groups.tsv"
    path.write_text(text, encoding)

    groups = read_groups(path)
    assert groups == {"good/0.png": "part 1", "good/1.png": "part 1", "stain/0.png": "部品 2"}
    images = {image.name: image for image in read_folder(root, groups=groups).images}
    assert images["good/0.png"].group == images["good/1.png"].group == "part 1"
    assert images["good/2.png"].group == images["good/2.png"].sha256


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"good/0.png\tpart 1\ngood/1.png\n", "Line 2 of .* is 'good/1.png'; a path, a tab and"),
        (b"good/0.png\ta\tb\n", "Line 1 of .* is 'good/0.png..a..b'"),
        (b"good/0.png\ta\n\n", "Line 2 of .* is ''"),
        (b"good/0.png\t\n", "Line 1 of .* is 'good/0.png..'"),
        (b"good/0.png\t\xff\n", "cannot be read: .*utf-8"),
    ],
)
def test_a_bad_group_file(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "groups.tsv"
    path.write_bytes(content)

    with pytest.raises(BadDataset, match=problem) as caught:
        read_groups(path)
    assert "a tab and a group" in caught.value.fix


def test_quotes_are_letters_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "groups.tsv"
    path.write_text('good/5".png\t"a\ngood/"6".png\tb"\n', "utf-8")

    assert read_groups(path) == {'good/5".png': '"a', 'good/"6".png': 'b"'}


def test_a_path_that_stands_twice_in_a_group_file(tmp_path: Path) -> None:
    path = tmp_path / "groups.tsv"
    path.write_text("good/0.png\ta\ngood/1.png\ta\ngood/0.png\tb\n", "utf-8")

    with pytest.raises(BadDataset, match=r"Line 3 of .* names 'good/0.png' a second time"):
        read_groups(path)


@pytest.mark.parametrize("name", ["Good/0.png", "good\\0.png", "0.png", "good/.hidden"])
def test_a_group_for_a_path_that_is_no_image(photographs: Photographs, name: str) -> None:
    root = photographs()
    (root / "good" / ".hidden").write_bytes(b"")

    with pytest.raises(BadDataset, match=r"\(1 of 2 such paths\)") as caught:
        read_folder(root, groups={"good/0.png": "part 1", name: "part 1"})
    assert f"{name!r}, which is no image under {root}" in caught.value.problem
    assert caught.value.field == "groups"


def test_copies_of_an_image_are_of_one_group(photographs: Photographs) -> None:
    root = photographs()
    (root / "good" / "copy.png").write_bytes((root / "good" / "0.png").read_bytes())

    groups = {"good/0.png": "part 1", "good/copy.png": "part 1"}
    assert read_folder(root, groups=groups).counts() == [4, 4, 4]
    with pytest.raises(BadDataset, match=r"'part 1' \(good/0.png\) and 'part 2' \(good/copy.png\)"):
        read_folder(root, groups=groups | {"good/copy.png": "part 2"})


def test_a_missing_group_file(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"nothing\.tsv cannot be read: .*No such file"):
        read_groups(tmp_path / "nothing.tsv")


HELD_OUT = draw_images(5, 5, 5, split="holdout", first=100)


def test_the_holdout_counts_where_every_class_has_five_groups_of_it() -> None:
    assert has_holdout(CLASSES, HELD_OUT)
    assert not has_holdout(CLASSES, HELD_OUT[1:])
    assert not has_holdout(CLASSES, draw_images(9, 9, 9))


def test_one_image_of_each_class_is_enough_beside_a_holdout() -> None:
    check_images(CLASSES, [*draw_images(1, 1, 1), *HELD_OUT])

    with pytest.raises(BadDataset, match=r"'stain' has 0 training .* at least 1 part are needed"):
        check_images(CLASSES, [*draw_images(1, 1, 0), *HELD_OUT])
    with pytest.raises(BadDataset, match=r"'good' has 1 training .* at least 2 parts"):
        check_images(CLASSES, [*draw_images(1, 1, 1), *HELD_OUT[:-1]])


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (draw_images(2, 2, 1), r"'stain' has 1 training image\(s\) of 1 part"),
        (draw_images(2, 2, 0), r"'stain' has 0 training image\(s\) of 0 part"),
        (
            [*draw_images(2, 2, 1), *draw_images(0, 0, 5, split="holdout", first=1)],
            "'stain' has 1 ",
        ),
        (
            [*draw_images(2, 2, 0), *(labelled(2, bytes([n]), group="one part") for n in (1, 2))],
            r"'stain' has 2 training image\(s\) of 1 part\(s\)",
        ),
    ],
)
def test_a_class_needs_images_of_two_parts(images: list[LabelledImage], problem: str) -> None:
    with pytest.raises(BadDataset, match=problem) as caught:
        check_images(CLASSES, images)
    assert "at least 2 parts" in caught.value.problem
    assert "'stain'" in caught.value.fix


def test_a_class_with_one_image_cannot_be_tuned_on(tune: Callable[..., Artifact]) -> None:
    with pytest.raises(BadDataset, match="'stain' has 1 "):
        tune(images=draw_images(4, 4, 1))


def test_a_group_on_both_sides_of_the_split() -> None:
    images = [
        *draw_images(2, 2, 2),
        labelled(0, b"a", group="part 1"),
        labelled(0, b"b", group="part 1", split="holdout"),
    ]

    with pytest.raises(BadDataset, match="The group 'part 1' has images in train and in holdout"):
        check_images(CLASSES, images)


@pytest.mark.parametrize("split", ["train", "holdout"])
def test_the_same_image_in_two_groups(split: Split) -> None:
    images = [
        *draw_images(2, 2, 2),
        labelled(0, b"a", group="part 1", name="a"),
        labelled(0, b"a", group="part 2", name="b", split=split),
    ]

    with pytest.raises(BadDataset, match=r"groups 'part 1' \(a\) and 'part 2' \(b\)") as caught:
        check_images(CLASSES, images)
    assert caught.value.field == "group"


def test_two_classes_are_checked_before_their_images() -> None:
    with pytest.raises(BadDataset, match="at least 2 classes"):
        check_images(CLASSES[:1], draw_images(2, 0, 0))


def test_a_subset_is_assigned_to_a_split() -> None:
    dataset = Dataset(CLASSES, draw_images(2, 2, 2))

    subset = dataset.subset([4, 0], "holdout")
    assert [image.sha256 for image in subset] == [dataset.images[i].sha256 for i in (4, 0)]
    assert {image.split for image in subset} == {"holdout"}
    assert {image.split for image in dataset.images} == {"train"}


def test_the_snapshot_is_a_set() -> None:
    images = draw_images(2, 2, 2)

    assert snapshot_digest(CLASSES, images) == snapshot_digest(CLASSES, images[::-1])
    assert snapshot_digest(CLASSES, images).startswith("sha256:")


def test_all_that_a_snapshot_depends_on() -> None:
    images, digests = draw_images(2, 2, 2), set()
    first = images[0]
    renamed = [class_spec("good", prompt_name="a good part"), *CLASSES[1:]]
    digests.add(snapshot_digest(CLASSES, images))
    digests.add(snapshot_digest(CLASSES[::-1], images))
    digests.add(snapshot_digest(renamed, images))
    digests.add(snapshot_digest(CLASSES, images[1:]))
    for changed in (
        labelled(1, first.read()),
        labelled(0, first.read(), group="part 1"),
        labelled(0, first.read(), split="holdout"),
        labelled(0, b"other bytes"),
    ):
        digests.add(snapshot_digest(CLASSES, [changed, *images[1:]]))

    assert len(digests) == 8
    elsewhere = labelled(0, first.read(), name="another/path.png")
    assert snapshot_digest(CLASSES, [elsewhere, *images[1:]]) in digests
