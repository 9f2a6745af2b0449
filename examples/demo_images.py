"""The photographs of the demo: from packages, a sample to tune on and another to be asked about."""

import csv
from collections.abc import Sequence
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.errors import BadInput

SHOTS, HELD_OUT, SEED = 16, 200, 1


class DemoClass(NamedTuple):
    """A class of the demo and the files that belong to it."""

    name: str
    prompt_name: str
    files: list[Path]


class Sample(NamedTuple):
    """A photograph and the index of its class."""

    path: Path
    label: int


def textile(*, local: bool = False) -> list[DemoClass]:
    """Simulated woven textile: nominal, a global defect and, if asked for, a local one.

    From the package conformal-clip-data (MIT).
    """
    root = _package("conformal_clip_data") / "data" / "textile_images" / "simulated"
    classes = [
        DemoClass("nominal", "regular textile weave", _files(root / "nominal")),
        DemoClass("global", "textile with a shifted weave pattern", _files(root / "global")),
    ]
    if local:
        name = "textile weave with a small local flaw"
        classes.append(DemoClass("local", name, _files(root / "local")))
    return classes


def solar_cells() -> list[DemoClass]:
    """Electroluminescence images of solar cells, the certain ones: functional and defective.

    From the package elpv-dataset (CC BY-NC-SA 4.0: for evaluation only).
    """
    data = _package("elpv_dataset") / "data"
    good: list[Path] = []
    bad: list[Path] = []
    with (data / "labels.csv").open() as file:
        for path, probability, _ in csv.reader(file, delimiter=" ", skipinitialspace=True):
            if float(probability) in (0.0, 1.0):
                (bad if float(probability) else good).append(data / path)
    return [
        DemoClass("normal", "intact solar cell", sorted(good)),
        DemoClass("defective", "cracked solar cell", sorted(bad)),
    ]


SETS = {
    "textile": textile,
    "three": lambda: textile(local=True),
    "elpv": solar_cells,
}


def draw(classes: Sequence[DemoClass]) -> tuple[list[Sample], list[Sample]]:
    """Draw `SHOTS` photographs of each class to tune on, and `HELD_OUT` others to ask about."""
    rng = np.random.default_rng(SEED)
    train: list[Sample] = []
    test: list[Sample] = []
    for label, spec in enumerate(classes):
        order = rng.permutation(len(spec.files))
        share = HELD_OUT // len(classes) + (label < HELD_OUT % len(classes))
        chosen = [Sample(spec.files[index], label) for index in order[: SHOTS + share]]
        train += chosen[:SHOTS]
        test += chosen[SHOTS:]
    return train, test


def _package(name: str) -> Path:
    if find_spec(name) is None:
        raise BadInput(
            f"The package {name} with the demo's photographs is not installed.",
            fix="Run the demo with make, which installs it: make demo, or make demo SET=elpv.",
        )
    return Path(str(resources.files(name)))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jpg"))
