"""Drawn photographs in every form that the bench reads, and results that were never run."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import pytest
from safetensors.torch import save_file

from models.backbone import Backbone
from models.backbone_files import CONFIG_NAME
from models.bench.cells import Cell, list_cells
from models.bench.data import BenchSet, SourceRef
from models.bench.machine import describe
from models.bench.message import BackboneRef
from models.bench.results import CellResult, Collapse, Meta, ResultFile, Seconds
from models.bench.sources import read_source
from models.bench.trial import Bench, load_set
from models.classes import class_spec
from models.dataset import Dataset, LabelledImage, Split
from models.features import MemoryFeatureStore
from tests.unit.models.conftest import PIXELS, TEXT, VISION, build_clip, encode, noise_image

MakeSet = Callable[..., BenchSet]


def photograph(label: int, number: int) -> bytes:
    """A PNG around the colour of a class; every pair gives other bytes."""
    colours = ((200, 60, 60), (60, 60, 200), (60, 200, 60), (200, 200, 60), (60, 200, 200))
    return encode(noise_image(1000 * label + number, colours[label]))


@pytest.fixture
def write_classes(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder per class with so many photographs each."""

    def write(name: str = "parts", *, first: int = 0, **counts: int) -> Path:
        root = tmp_path / name
        for label, (folder, count) in enumerate(counts.items()):
            (root / folder).mkdir(parents=True)
            for number in range(first, first + count):
                (root / folder / f"{number}.png").write_bytes(photograph(label, number))
        return root

    return write


def drawn_set(
    *counts: int,
    name: str = "drawn",
    groups: Mapping[tuple[int, int], str] | None = None,
    holdout: Sequence[tuple[int, int]] = (),
) -> BenchSet:
    """A set of so many images of each class that were never drawn; `(label, number)` names one."""
    images = []
    for label, count in enumerate(counts):
        for number in range(count):
            place = f"c{label}/{number}"
            group = (groups or {}).get((label, number), place)
            split: Split = "holdout" if (label, number) in holdout else "train"
            images.append(LabelledImage(place, label, group, split, bytes, place))
    classes = [class_spec(f"class {label}") for label in range(len(counts))]
    return BenchSet(name, Dataset(classes, images), bool(holdout))


@pytest.fixture
def bench(backbone: Backbone, write_classes: Callable[..., Path]) -> Bench:
    """Two sets of the same four classes, six and eight photographs of each."""
    sets = {}
    for name, count, first in (("parts", 6, 0), ("later", 8, 100)):
        counts = dict.fromkeys(("bolt", "gear", "nut", "washer"), count)
        data = read_source(SourceRef(path=write_classes(name, first=first, **counts)))
        sets[name] = load_set(data, backbone, MemoryFeatureStore())
    return Bench(backbone, sets)


@pytest.fixture
def meta(bench: Bench) -> Meta:
    digests = {name: loaded.data.digest for name, loaded in bench.sets.items()}
    return describe(bench.backbone, "shotline bench parts later", digests)


@pytest.fixture
def cells() -> list[Cell]:
    """Eight cells, done in a moment."""
    methods = ["zero-shot", "nearest-class-mean", "linear-probe", "linear-probe-balanced"]
    return list_cells(["parts"], "few-shot", methods, [2], [1.0], [1, 2])


@pytest.fixture
def results(meta: Meta, cells: list[Cell], tmp_path: Path) -> ResultFile:
    return ResultFile(tmp_path / "out.json", meta, cells)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> BackboneRef:
    """The tiny CLIP as a folder that any process can load."""
    folder = tmp_path_factory.mktemp("backbone")
    save_file(build_clip().state_dict(), folder / "open_clip_model.safetensors")
    config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
        "preprocess_cfg": {key: PIXELS[key] for key in ("mean", "std", "interpolation")},
    }
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    source = f"local-dir:{folder}"
    clip = open_clip.create_model(source, require_pretrained=True)
    loaded = Backbone(clip, open_clip.SimpleTokenizer(), source=source, device="cpu")
    return BackboneRef(
        source=source, device="cpu", precision="fp32", offline=True, digest=loaded.digest
    )


def result(method: str = "coop", accuracy: float = 0.5, **values: Any) -> CellResult:
    """A result that nobody ran."""
    given: dict[str, Any] = {
        "dataset": "parts",
        "protocol": "few-shot",
        "recipe": {},
        "shots": 4,
        "tau": 1.0,
        "seed": 1,
        "n_classes": 4,
        "n_train": 16,
        "n_test": 40,
        "top1": accuracy,
        "macro": accuracy,
        "tail_macro": None,
        "worst_class": accuracy / 2,
        "base": None,
        "novel": None,
        "h": None,
        "nc": Collapse(text_nc2=1 - accuracy, text_to_image_nc3=1 - accuracy),
        "ece": 0.1,
        "seconds": Seconds(features=1, tune=2, test=0.5),
        "peak_mb": 700.0,
    }
    return CellResult(method=method, **given | values)
