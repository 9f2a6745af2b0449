"""The data doctor: each check finds what was planted, and nothing where nothing was."""

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter
import pytest

from models.dataset import LabelledImage, Split
from models.errors import BadDataset
from models.findings import alike
from models.findings import label_errors as labels
from models.findings.balance import few_images, identical_classes, imbalance
from models.findings.blur import blur
from models.findings.exact_duplicates import exact_duplicates
from models.findings.examine import CHECKS, examine
from models.findings.exposure import exposure
from models.findings.finding import KINDS, Finding, FindingSummary, ranked, summaries
from models.findings.folder import read_as_it_is
from models.findings.giveaway import giveaways
from models.findings.near_duplicates import near_duplicates, near_pairs
from models.findings.outliers import outliers
from models.findings.page import TITLES, render_findings
from models.findings.size import size
from models.findings.subject import Subject, look_at
from models.findings.trait_store import FolderTraitStore, MemoryTraitStore
from models.findings.traits import Traits, measure
from models.imaging import MAX_SIDE
from models.language import ENGLISH, JAPANESE, LANGUAGES, Phrase
from models.recipe import Recipe
from tests.unit.models.conftest import encode

CLASSES = ["good", "scratch", "stain"]


def picture(seed: int, side: int = 96) -> PIL.Image.Image:
    """A grey photograph with coarse and fine structure; every seed gives another."""
    rng = np.random.default_rng(seed)
    coarse = PIL.Image.fromarray(rng.integers(60, 180, (8, 8), dtype=np.uint8))
    middle = PIL.Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8))
    layers = [
        np.asarray(one.resize((side, side), PIL.Image.Resampling.BICUBIC), dtype=float)
        for one in (coarse, middle)
    ]
    fine = rng.normal(0, 8, (side, side))
    grey = 0.6 * layers[0] + 0.4 * layers[1] + fine
    return PIL.Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


def jpeg(image: PIL.Image.Image, quality: int = 90) -> bytes:
    return encode(image, "JPEG", quality=quality)


def image(
    label: int, data: bytes, *, group: str = "", split: Split = "train", name: str = ""
) -> LabelledImage:
    digest = hashlib.sha256(data).hexdigest()
    return LabelledImage(digest, label, group or digest, split, lambda: data, name or digest[:8])


def draw(*counts: int, change: Callable[[int], bytes] | None = None) -> list[LabelledImage]:
    """Return that many different photographs of each class."""
    made = change or (lambda seed: jpeg(picture(seed)))
    return [
        image(label, made(1000 * label + number), name=f"{label}/{number}")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def subject(
    images: Sequence[LabelledImage], features: np.ndarray | None = None, **options: object
) -> Subject:
    encoder = None if features is None else lambda _: features
    found = look_at(CLASSES, images, MemoryTraitStore(), encode=encoder)
    return replace(found, **options)


def clusters(*sizes: int, seed: int = 0) -> np.ndarray:
    """Unit vectors around one direction for each class."""
    rng = np.random.default_rng(seed)
    rows = [
        np.eye(16)[label] + rng.normal(0, 0.1, 16)
        for label, count in enumerate(sizes)
        for _ in range(count)
    ]
    return np.stack([row / np.linalg.norm(row) for row in rows])


@pytest.fixture(scope="module")
def clean() -> Subject:
    """Ten photographs of each class with nothing wrong but that there are few."""
    return subject(draw(10, 10, 10), clusters(10, 10, 10))


def named(found: Sequence[Finding]) -> set[str]:
    return {ref.name for one in found for ref in one.images}


def test_a_clean_set_has_no_findings(clean: Subject) -> None:
    assert examine(clean) == []


@pytest.mark.parametrize(
    ("label", "split", "severity", "says"),
    [
        (0, "train", "note", "the same file"),
        (1, "train", "serious", "under the labels 'good', 'scratch'"),
        (0, "holdout", "serious", "both sides of the split"),
    ],
)
def test_the_same_bytes_again(label: int, split: Split, severity: str, says: str) -> None:
    images = draw(3, 3)
    again = replace(images[0], label=label, split=split, name="again")
    (one,) = exact_duplicates(subject([*images, again]))
    assert (one.kind, one.severity) == ("exact_duplicate", severity)
    assert says in one.problem
    assert [ref.name for ref in one.images] == ["0/0", "again"]


COPIES: dict[str, Callable[[PIL.Image.Image], bytes]] = {
    "saved again": lambda it: jpeg(it, 50),
    "as PNG": encode,
    "smaller": lambda it: jpeg(it.resize((60, 60))),
    "brighter": lambda it: jpeg(PIL.ImageEnhance.Brightness(it).enhance(1.3)),
    "darker": lambda it: jpeg(PIL.ImageEnhance.Brightness(it).enhance(0.7)),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_found_without_features(how: str) -> None:
    copy = image(0, COPIES[how](picture(1)), name="copy")
    (one,) = near_duplicates(subject([*draw(4, 4), copy]))
    assert (one.severity, one.classes) == ("warning", ["good"])
    assert named([one]) == {"0/1", "copy"}
    assert 0.6 <= one.score <= 1


def test_a_part_of_an_image_is_found_with_features() -> None:
    part = image(1, jpeg(picture(2).crop((6, 3, 90, 87))), name="part")
    features = clusters(4, 4, 1)
    features[-1] = features[2]
    (one,) = near_duplicates(subject([*draw(4, 4), part], features))
    assert one.severity == "serious"  # labelled otherwise
    assert named([one]) == {"0/2", "part"}


def test_images_of_one_group_are_expected_to_be_alike() -> None:
    images = [replace(it, group="a") if it.name == "0/1" else it for it in draw(4, 4)]
    copy = image(0, jpeg(picture(1), 50), group="a", name="copy")
    assert near_duplicates(subject([*images, copy])) == []
    (conflict,) = near_duplicates(subject([*images, replace(copy, label=1)]))
    assert conflict.severity == "serious"
    (leak,) = near_duplicates(subject([*images, replace(copy, split="holdout")]))
    assert (leak.severity, "both sides" in leak.problem) == ("serious", True)


def test_many_copies_give_fewer_findings_than_images_and_the_conflict_first() -> None:
    copies = [image(0, jpeg(picture(1), quality), name=f"q{quality}") for quality in (60, 70, 80)]
    images = [*draw(4, 4), *copies, image(1, jpeg(picture(1), 65), name="other")]
    found = near_duplicates(subject(images))
    assert len(found) < 5
    assert (found[0].severity, "other" in named(found[:1])) == ("serious", True)
    assert named(found) == {"0/1", "q60", "q70", "q80", "other"}


def test_likeness_is_the_same_in_either_order_and_one_for_the_same_pixels() -> None:
    twins = [image(0, encode(picture(5)), name="a"), image(0, jpeg(picture(5), 100), name="b")]
    for images in (twins, twins[::-1]):
        pairs, likeness = near_pairs(subject(images))
        assert pairs.tolist() == [[0, 1]]
        assert likeness == pytest.approx([1.0], abs=0.01)


def test_likeness_in_parts_is_that_of_the_whole(
    clean: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    thumbnails = np.stack([one.thumbnail for one in clean.traits])
    pairs = np.array([[0, 1], [0, 7], [2, 3], [4, 4], [5, 29]])
    whole = alike.likeness(thumbnails, pairs)
    monkeypatch.setattr(alike, "_READY", 3)
    monkeypatch.setattr(alike, "_PAIRS", 2)
    assert alike.likeness(thumbnails, pairs) == pytest.approx(whole, abs=1e-5)
    assert whole[3] == pytest.approx(1, abs=1e-3)


def test_stripes_are_no_copies_of_one_another() -> None:
    def striped(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        grey = 120 + 60 * np.sin(np.arange(96) / 5 + seed)[None] + rng.normal(0, 10, (96, 96))
        return jpeg(PIL.Image.fromarray(grey.clip(0, 255).astype(np.uint8)))

    assert near_duplicates(subject(draw(8, change=striped), clusters(8))) == []


def test_flat_images_are_no_copies_by_accident() -> None:
    flat = [image(0, encode(PIL.Image.new("L", (64, 64), 100 + n)), name=str(n)) for n in range(4)]
    assert near_duplicates(subject(flat)) == []


def test_a_flipped_label_comes_first_beside_an_image_of_its_class() -> None:
    images = draw(8, 8, 8)
    images[3] = replace(images[3], label=2)
    found = labels.label_errors(subject(images, clusters(8, 8, 8)))
    assert named(found[:1]) == {"0/3", found[0].images[1].name}
    assert found[0].images[1].label == "good"
    assert found[0].classes == ["stain", "good"]
    assert len(found) == 1


def test_labels_are_not_judged_from_one_part_or_without_features() -> None:
    images = draw(6, 6, 1)
    ranking = labels.rank_labels(subject(images, clusters(6, 6, 1)))
    assert ranking is not None
    assert 12 not in ranking.indices  # the only image of its class
    assert labels.rank_labels(subject(images)) is None
    one_part = [replace(it, group="a") for it in images]
    assert labels.rank_labels(subject(one_part, clusters(6, 6, 1))) is None


def test_ranking_and_suspects_are_those_of_cleanlab() -> None:
    count = pytest.importorskip("cleanlab.count")
    rank = pytest.importorskip("cleanlab.rank")
    rng = np.random.default_rng(3)
    given = rng.integers(0, 4, 200)
    probabilities = rng.dirichlet(np.ones(4) * 0.4, 200) + 0.3 * np.eye(4)[given]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    suspect = labels._confident_errors(probabilities, given)
    _, expected = count.compute_confident_joint(
        given, probabilities, calibrate=False, return_indices_of_off_diagonals=True
    )
    assert np.flatnonzero(suspect).tolist() == sorted(expected)
    assert 0 < suspect.sum() < 200
    own = probabilities[np.arange(200), given]
    others = np.where(np.eye(4, dtype=bool)[given], -1, probabilities).max(axis=1)
    score = rank.get_label_quality_scores(given, probabilities, method="normalized_margin")
    assert 1 - 2 * score == pytest.approx(others - own)


def test_a_foreign_image_is_an_outlier() -> None:
    features = np.concatenate([clusters(10, 10, 10), np.eye(16)[9:10]])
    images = [*draw(10, 10, 10), image(1, jpeg(picture(77)), name="floor")]
    assert named(outliers(subject(images, features))) == {"floor"}
    few = subject(images[:6], features[:6])
    assert outliers(few) == []  # nothing is usual yet


def test_a_blurred_image_is_found_beside_its_class() -> None:
    soft = picture(3).filter(PIL.ImageFilter.GaussianBlur(2.5))
    images = [*draw(9, 9), image(1, jpeg(soft), name="soft")]
    assert named(blur(subject(images))) == {"soft"}

    def smooth(seed: int) -> bytes:
        return jpeg(picture(seed).filter(PIL.ImageFilter.GaussianBlur(2.5)))

    # A class that is smooth by nature is no fault of its images.
    assert blur(subject(draw(9) + [replace(it, label=1) for it in draw(9, change=smooth)])) == []


@pytest.mark.parametrize(
    ("factor", "says"), [(0.08, "too dark"), (4.0, "overexposed"), (0.0, "too dark")]
)
def test_bad_exposure(factor: float, says: str) -> None:
    wrong = jpeg(PIL.ImageEnhance.Brightness(picture(4)).enhance(factor))
    images = [*draw(9, 9), image(0, wrong, name="wrong")]
    (one,) = exposure(subject(images))
    assert (named([one]), says in one.problem) == ({"wrong"}, True)


def test_a_covered_camera_has_no_contrast() -> None:
    grey = encode(PIL.Image.new("L", (96, 96), 120))
    (one,) = exposure(subject([*draw(9, 9), image(0, grey, name="grey")]))
    assert "without contrast" in one.problem


def test_a_dark_line_is_no_fault_of_its_images() -> None:
    def dark(seed: int) -> bytes:
        return jpeg(PIL.ImageEnhance.Brightness(picture(seed)).enhance(0.2))

    assert exposure(subject(draw(9, 9, change=dark))) == []


def test_sizes_unlike_the_rest() -> None:
    images = [
        *draw(8, 8),
        image(0, jpeg(picture(50, 300)), name="large"),
        image(1, jpeg(picture(51).crop((0, 0, 96, 40))), name="wide"),
    ]
    found = size(subject(images, view_size=224))
    assert [(sorted(named([one])), one.severity) for one in found[:2]] == [
        (["large"], "warning"),
        (["wide"], "warning"),
    ]
    assert (found[2].count, found[2].severity) == (17, "warning")
    assert "fewer pixels per side than the 224" in found[2].problem
    assert size(subject(draw(8, 8), view_size=96)) == []


def test_a_class_of_another_format_is_given_away() -> None:
    images = draw(10, 10)
    again = [image(2, encode(picture(2000 + n)), name=f"2/{n}") for n in range(10)]
    (one,) = giveaways(subject([*images, *again]))
    assert (one.severity, one.classes) == ("serious", ["stain"])
    assert one.problem.startswith("The file format gives 'stain' away: by it alone 100%")
    assert one.score == 1


def test_a_part_of_a_class_in_another_format_is_given_away_too(clean: Subject) -> None:
    images = [
        replace(image(it.label, encode(picture(n))), label=1) if 10 <= n < 17 else it
        for n, it in enumerate(clean.images)
    ]
    found = giveaways(subject(images))
    assert [one.classes for one in found] == [["scratch"]]


def test_what_few_groups_say_gives_nothing_away() -> None:
    again = [replace(image(1, encode(picture(100 + n))), group="one part") for n in range(10)]
    assert giveaways(subject([*draw(10), *again])) == []


def test_uneven_classes_and_what_the_recipe_does() -> None:
    (one,) = imbalance(subject(draw(12, 3, 6)))
    assert (one.severity, one.score, one.classes) == ("note", 4.0, ["scratch", "good"])
    assert "logit_adjustment 1" in one.fix
    assert "caution 6" in one.fix
    plain = Recipe(logit_adjustment=0, fusion="mean")
    (other,) = imbalance(subject(draw(22, 2, 6), recipe=plain))
    assert other.severity == "warning"
    assert "does nothing about it" in other.fix
    assert "caution" not in other.fix


@pytest.mark.parametrize(
    ("count", "severity", "says"),
    [(0, "serious", "0 training image(s)"), (1, "serious", "too few to tune on"),
     (3, "warning", "says little")],
)  # fmt: skip
def test_too_few_images(count: int, severity: str, says: str) -> None:
    (one,) = few_images(subject(draw(5, count, 5)))
    assert (one.severity, one.classes, one.count) == (severity, ["scratch"], count)
    assert says in one.problem


def test_groups_count_not_images() -> None:
    images = [replace(it, group="a") if it.label == 0 else it for it in draw(9, 5, 5)]
    (one,) = few_images(subject(images))
    assert "9 training image(s) of 1 part(s), too few" in one.problem


def test_a_class_of_one_picture() -> None:
    same = [image(1, jpeg(picture(7), quality), name=str(quality)) for quality in (98, 99, 100)]
    (one,) = identical_classes(subject([*draw(3), *same]))
    assert (one.severity, one.classes, one.count) == ("serious", ["scratch"], 3)
    exact = [replace(same[0], name=str(n)) for n in range(3)]
    assert [it.kind for it in identical_classes(subject([*draw(3), *exact]))] == ["identical_class"]


@pytest.mark.parametrize("counts", [(1, 1), (1, 8), (0, 0, 0), (2,), (40, 1, 1)])
def test_no_check_breaks_on_odd_sets(counts: tuple[int, ...]) -> None:
    for features in (None, clusters(*counts) if sum(counts) else None):
        found = examine(subject(draw(*counts), features))
        assert {"few_images"} <= {one.kind for one in found}


def test_no_check_breaks_on_one_picture_many_times() -> None:
    same = [replace(it, label=n % 3) for n, it in enumerate(draw(1) * 30)]
    features = np.repeat(clusters(1), 30, axis=0)
    kinds = {one.kind for one in examine(subject(same, features))}
    assert {"exact_duplicate", "identical_class", "few_images"} <= kinds


def test_damaged_files_are_findings_and_the_rest_is_looked_at() -> None:
    data = jpeg(picture(1))

    def gone() -> bytes:
        raise FileNotFoundError("no such file")

    images = [
        *draw(6, 6),
        image(0, data[: len(data) // 2], name="half"),
        image(1, b"", name="empty"),
        replace(image(1, b"text", name="gone"), sha256="", read=gone),
    ]
    told: list[tuple[int, int]] = []
    found = look_at(
        CLASSES, images, MemoryTraitStore(), progress=lambda done, total: told.append((done, total))
    )
    assert len(found.images) == 12
    assert [one.images[0].name for one in found.unreadable] == ["half", "empty", "gone"]
    assert {one.severity for one in found.unreadable} == {"serious"}
    assert told[-1] == (15, 15)
    assert {one.kind for one in examine(found)} == {"unreadable", "few_images"}


def test_summaries_have_the_worst_of_each_kind_and_no_bytes(clean: Subject) -> None:
    again = [replace(it, label=1, name=f"again {n}") for n, it in enumerate(clean.images[:5])]
    found = examine(subject([*clean.images, *again]))
    assert found == ranked(found)
    (worst, *_) = summaries(found)
    assert (worst.kind, worst.severity, worst.count) == ("exact_duplicate", "serious", 5)
    assert [len(pair) for pair in worst.examples] == [2, 2, 2]
    assert worst.sentence.endswith("remove or relabel the others.")
    assert len(worst.model_dump_json()) < 2000


def test_traits_are_measured_once_and_outlive_the_process(tmp_path: Path) -> None:
    data = jpeg(picture(1))
    digest = hashlib.sha256(data).hexdigest()
    store = FolderTraitStore(tmp_path)
    assert store.get(digest) is None
    look_at(CLASSES, [image(0, data)], store)
    kept = FolderTraitStore(tmp_path).get(digest)
    assert kept is not None
    assert kept.pixels == measure(data).pixels
    assert (kept.thumbnail == measure(data).thumbnail).all()

    def never() -> bytes:
        raise AssertionError("it is known")

    look_at(CLASSES, [replace(image(0, data), read=never)], store)
    (path,) = tmp_path.rglob("*.json")
    path.write_text("{")
    assert store.get(digest) is None


def test_traits_of_a_large_jpeg_are_those_of_the_whole() -> None:
    large = picture(1, 96).resize((2400, 2400), PIL.Image.Resampling.BICUBIC)
    shrunk, whole = measure(jpeg(large)), measure(encode(large))
    assert (shrunk.file.width, shrunk.file.height) == (2400, 2400)
    assert shrunk.pixels.mean == pytest.approx(whole.pixels.mean, abs=1)
    assert shrunk.pixels.sharpness == pytest.approx(whole.pixels.sharpness, abs=0.5)


def test_a_folder_as_it_is(tmp_path: Path) -> None:
    for name, count in (("good", 3), ("scratch", 1), ("stain", 0)):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "in" / name / f"{number}.jpg").write_bytes(jpeg(picture(number)))
    (tmp_path / "in" / "good" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "in" / ".hidden").mkdir()
    (tmp_path / "test" / "good").mkdir(parents=True)
    (tmp_path / "test" / "good" / "0.jpg").write_bytes(jpeg(picture(0)))
    classes, images = read_as_it_is(
        tmp_path / "in", holdout=tmp_path / "test", groups={"good/1.jpg": "a"}
    )
    assert classes == ["good", "scratch", "stain"]
    assert [it.name for it in images][-1] == "test/good/0.jpg"
    assert [it.split for it in images] == ["train"] * 5 + ["holdout"]
    assert images[1].group == "a"
    assert images[0].group == images[-1].group == images[0].sha256


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.mkdir(), "it is empty"),
        (lambda root: (root.mkdir(), (root / "a.jpg").write_bytes(b"x")), "1 file(s) whose class"),
        (lambda root: (root / "good" / "more").mkdir(parents=True), "holds the folder 'more'"),
    ],
)
def test_folders_that_are_none(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    make(tmp_path / "in")
    with pytest.raises(BadDataset, match=re.escape(says)):
        read_as_it_is(tmp_path / "in")


def copies() -> list[Finding]:
    """Exact and near ones under two labels, on both sides, as two parts, and in threes."""
    first, found = draw(3, 3), []
    for check, data in (
        (exact_duplicates, jpeg(picture(1))),
        (near_duplicates, jpeg(picture(1), 60)),
    ):
        again = image(0, data, name="again")
        for other in (
            replace(again, label=1),
            replace(again, split="holdout"),
            replace(again, group="another part"),
            again,
        ):
            found += check(subject([*first, other]))
    return [
        *found,
        *exact_duplicates(subject([*first, *(replace(first[0], name=n) for n in "ab")])),
    ]


def sizes() -> list[Finding]:
    """One image of another size and shape, and one and several that are too small."""
    large = image(0, jpeg(picture(50, 300)), name="large")
    wide = image(1, jpeg(picture(51).crop((0, 0, 96, 40))), name="wide")
    return [
        *size(subject([*draw(8, 8), large, wide], view_size=224)),
        *size(subject(draw(1), view_size=224)),
    ]


def given_away() -> list[Finding]:
    """A class that one property of its files gives away, each in turn; and one by two of them."""
    plain = subject(draw(10, 10))
    found = []
    for change in (
        {"format": "PNG"},
        {"mode": "L"},
        {"exif": True},
        {"width": 500},
        {"quantisation": 99.0},
        {"size_bytes": 90_000},
    ):
        traits = [
            replace_model(one, file=one.file.model_copy(update=change)) if n < 10 else one
            for n, one in enumerate(plain.traits)
        ]
        found += giveaways(replace(plain, traits=traits))
    framed = [
        replace_model(one, pixels=one.pixels.model_copy(update={"border_mean": 255.0 * (n < 10)}))
        for n, one in enumerate(plain.traits)
    ]
    both = [
        replace_model(one, file=one.file.model_copy(update={"format": "PNG" if n < 10 else "JPEG"}))
        for n, one in enumerate(framed)
    ]
    return [
        *found,
        *giveaways(replace(plain, traits=framed)),
        *giveaways(replace(plain, traits=both)),
    ]


def replace_model(traits: Traits, **parts: object) -> Traits:
    return traits.model_copy(update=parts)


def unreadable() -> list[Finding]:
    """A file of each fault."""

    def gone() -> bytes:
        raise FileNotFoundError("no such file")

    data = jpeg(picture(1))
    files = {
        "empty": b"",
        "foreign": b"no image",
        "damaged": data[: len(data) // 2],
        "large": encode(PIL.Image.new("L", (MAX_SIDE + 1, 1))),
        "form": encode(PIL.Image.new("F", (8, 8)), "TIFF"),
    }
    images = [image(0, content, name=name) for name, content in files.items()]
    images.append(replace(images[0], name="gone", read=gone))
    return list(look_at(CLASSES, images, MemoryTraitStore()).unreadable)


@pytest.fixture(scope="module")
def every_finding() -> list[Finding]:
    """At least one of each kind, and of each thing that is said of one."""
    flipped = draw(8, 8, 8)
    flipped[3] = replace(flipped[3], label=2)
    floor = [*draw(10, 10, 10), image(1, jpeg(picture(77)), name="floor")]
    bright = PIL.ImageEnhance.Brightness(picture(4))
    spoilt = {
        "soft": jpeg(picture(3).filter(PIL.ImageFilter.GaussianBlur(2.5))),
        "dark": jpeg(bright.enhance(0.08)),
        "white": jpeg(bright.enhance(4.0)),
        "grey": encode(PIL.Image.new("L", (96, 96), 120)),
    }
    odd = subject([*draw(9, 9), *(image(0, data, name=name) for name, data in spoilt.items())])
    same = [image(1, jpeg(picture(7), quality), name=str(quality)) for quality in (98, 99, 100)]
    return [
        *copies(),
        *labels.label_errors(subject(flipped, clusters(8, 8, 8))),
        *outliers(subject(floor, np.concatenate([clusters(10, 10, 10), np.eye(16)[9:10]]))),
        *blur(odd),
        *exposure(odd),
        *sizes(),
        *given_away(),
        *imbalance(subject(draw(12, 3, 6))),
        *imbalance(subject(draw(22, 2, 6), recipe=Recipe(logit_adjustment=0, fusion="mean"))),
        *few_images(subject(draw(5, 1, 3))),
        *identical_classes(subject([*draw(3), *same])),
        *unreadable(),
    ]


def keys(said: Phrase) -> set[str]:
    """Return the keys of a phrase and of all phrases in it."""
    inner = [it if isinstance(it, list) else [it] for it in said.values.values()]
    phrases = [one for part in inner for one in part if isinstance(one, Phrase)]
    return {said.key}.union(*map(keys, phrases))


def test_every_kind_of_finding_is_told_in_every_language(every_finding: list[Finding]) -> None:
    assert {one.kind for one in every_finding} == set(KINDS)
    for one in every_finding:
        assert (one.problem, one.fix) == (ENGLISH.worded(one.says), ENGLISH.worded(one.asks))
        assert one.problem.endswith(".")
        assert one.fix.endswith(".")
        japanese = JAPANESE.worded([*one.says, *one.asks])
        assert japanese.endswith("。")
        # Names stand in brackets of their own, settings of the recipe in parentheses.
        unnamed = re.sub(r"「[^」]*」|（[^）]*）", "", japanese)  # noqa: RUF001 - as Japanese has them
        assert not re.search(r"[A-Za-z]+(?:[ ,]+[A-Za-z]+){2}", unnamed), japanese
        for name in one.classes:
            assert name in japanese or one.kind in {"size", "unreadable"}


def test_nothing_is_there_to_be_said_that_no_finding_says(every_finding: list[Finding]) -> None:
    told = set().union(*(keys(said) for one in every_finding for said in (*one.says, *one.asks)))
    there = {
        key
        for key in ENGLISH.texts
        if re.match(r"(finding\.\w+\.|fix\.|giveaway\.|finding\.(image|pair)$)", key)
    }
    assert told == there


def test_findings_come_back_from_json_and_say_the_same(every_finding: list[Finding]) -> None:
    for one in every_finding:
        assert Finding.model_validate_json(one.model_dump_json()) == one
    for summary in summaries(every_finding):
        kept = FindingSummary.model_validate_json(summary.model_dump_json())
        assert kept.sentence == ENGLISH.worded(kept.said)
        assert all(language.worded(kept.said) for language in LANGUAGES.values())


def test_the_page_is_whole_and_runs_nothing(clean: Subject) -> None:
    hostile = "<script>alert('x')</script>\"&'"
    again = replace(clean.images[0], label=1, name=hostile)
    images = [*clean.images, again]
    page = render_findings(examine(subject(images)), images, title=hostile, facts="31 images.")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert set(TITLES) == {*CHECKS, "unreadable"}
    empty = render_findings([], images, title="x", facts="")
    assert "Nothing was found." in empty


def test_pictures_of_damaged_files_are_left_out() -> None:
    bad = image(0, b"no image", name="bad")
    found = look_at(CLASSES, [bad], MemoryTraitStore())
    page = render_findings(found.unreadable, [bad], title="x", facts="")
    assert "data:image" not in page
    assert "bad" in page


def test_measuring_reads_what_the_file_says_of_itself() -> None:
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0110] = "camera"
    picture(1).save(buffer, "JPEG", exif=exif, quality=30)
    fine, coarse, png = measure(jpeg(picture(1))), measure(buffer.getvalue()), encode(picture(1))
    assert (fine.file.exif, coarse.file.exif) == (False, True)
    assert coarse.file.quantisation > fine.file.quantisation > measure(png).file.quantisation == 0
    assert (measure(png).file.format, measure(png).file.mode) == ("PNG", "RGB")
