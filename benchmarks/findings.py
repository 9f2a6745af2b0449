"""What the data doctor finds of planted faults, and what it finds where none were planted.

Run with `python -m benchmarks.findings`, with `--sets development` on the sets that its thresholds
were chosen on. Cells that `benchmarks/results/findings.json` has are not computed again: delete the
file to begin anew. About ten minutes on two cores, most of it encoding.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.common import RESULTS, data_root, reencoded, reencoded_images, write_results
from benchmarks.development_sets import SETS, development_set
from benchmarks.planted import (
    COPIES,
    FAULTS,
    as_file,
    flip_labels,
    in_memory,
    plant_copies,
    plant_fault,
)
from models.backbone import Backbone
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.dataset import Dataset, LabelledImage, read_folder, read_groups
from models.evaluation.splits import draw_shots
from models.features import FeatureStore, FolderFeatureStore, MemoryFeatureStore, image_features
from models.findings.blur import blur
from models.findings.exact_duplicates import exact_duplicates
from models.findings.exposure import exposure
from models.findings.finding import Finding
from models.findings.giveaway import giveaways
from models.findings.label_errors import label_errors, rank_labels
from models.findings.near_duplicates import near_duplicates
from models.findings.outliers import outliers
from models.findings.subject import Subject, look_at
from models.findings.trait_store import MemoryTraitStore
from models.imaging import View, decode

REPORTED = ("xsdd", "clothing10")
DEVELOPMENT = ("textures", "drawn_defects", "imagenet_val20", "magnetic_tile")
SHOTS: Mapping[str, int] = {"16": 16, "40": 40, "all": 10**9}
_FLIPPED, _TOP = 0.05, 0.1  # shares of the images
_SHARE = 0.04  # of the images: copies of each kind, images with each fault

Cell = dict[str, Any]


class Doctor:
    """Looks at sets of images, each image once."""

    def __init__(self, backbone: Backbone, features: FeatureStore) -> None:
        self._traits = MemoryTraitStore()
        self._encode = partial(_encode, backbone, features)
        self._view_size = backbone.pixels.size

    def look(self, classes: Sequence[str], images: Sequence[LabelledImage]) -> Subject:
        """Return what the checks look at."""
        return look_at(
            classes, images, self._traits, encode=self._encode, view_size=self._view_size
        )


def _encode(backbone: Backbone, store: FeatureStore, images: Sequence[LabelledImage]) -> np.ndarray:
    return image_features(images, backbone, View(), store).numpy()


def main(
    sets: Annotated[str, typer.Option(help="`reported`, `development`, or names.")] = "reported",
    seeds: Annotated[str, typer.Option(help="Seeds of the draws and of the faults.")] = "1,2,3,4,5",
    shots: Annotated[str, typer.Option(help="Images per class: 16, 40, all.")] = "16,40,all",
    store: Annotated[Path | None, typer.Option(help="A feature store to use again.")] = None,
) -> None:
    """Print recalls and false alarms, and write `benchmarks/results/findings*.json`."""
    names = {"reported": REPORTED, "development": DEVELOPMENT}.get(sets, tuple(sets.split(",")))
    file = "findings" if set(names) <= set(REPORTED) else "findings_development"
    cells = _known(file)
    features = FolderFeatureStore(store) if store else MemoryFeatureStore()
    doctor = Doctor(load_backbone(STARTER), features)
    for name in names:
        dataset = _dataset(name)
        wanted = [(size, int(seed)) for size in shots.split(",") for seed in seeds.split(",")]
        for size, seed in track(wanted, f"Examining {name}"):
            key = f"{name} {size} {seed}"
            if key not in cells:
                cells[key] = _cell(doctor, dataset, name, size, seed)
                write_results(file, {"summary": summarise(cells), "cells": cells})
    _print(summarise(cells))


def _known(file: str) -> dict[str, Cell]:
    path = RESULTS / f"{file}.json"
    cells: dict[str, Cell] = json.loads(path.read_text())["cells"] if path.exists() else {}
    return cells


def _dataset(name: str) -> Dataset:
    if name in SETS:
        return reencoded_images(development_set(name))
    if name == "magnetic_tile":
        groups = read_groups(data_root() / "magnetic_tile_groups.tsv")
        return read_folder(data_root() / name, groups=groups)
    # Of xsdd one class alone has PNGs, which is a trap of its own: `as_it_is` below.
    return reencoded(data_root() / name) if name == "xsdd" else read_folder(data_root() / name)


def _cell(doctor: Doctor, dataset: Dataset, name: str, size: str, seed: int) -> Cell:
    """Plant every kind of fault into one draw of the set, and look."""
    labels, groups = [i.label for i in dataset.images], [i.group for i in dataset.images]
    drawn, _ = draw_shots(labels, groups, SHOTS[size], seed)
    images, classes = dataset.subset(drawn, "train"), [spec.name for spec in dataset.classes]
    rng = np.random.default_rng([seed, SHOTS[size]])
    clean = doctor.look(classes, images)
    return {
        "images": len(images),
        "copies": _copies(doctor, clean, rng),
        "labels": _labels(clean, rng),
        "faults": _faults(doctor, clean, rng),
        "outliers": _outliers(doctor, clean, name, rng),
        "giveaway": _giveaway(doctor, clean, rng),
    } | ({"as_it_is": _as_it_is(doctor, drawn)} if name == "xsdd" else {})


def _copies(doctor: Doctor, clean: Subject, rng: np.random.Generator) -> Cell:
    each = max(2, round(_SHARE * len(clean.images)))
    each = min(each, len(clean.images) // len(COPIES))
    copies = plant_copies(clean.images, each, rng, len(clean.classes))
    subject = doctor.look(clean.classes, [*clean.images, *(one.copy for one in copies)])
    found = exact_duplicates(subject) + near_duplicates(subject)
    together = [{(ref.name, ref.sha256) for ref in one.images} for one in found]
    caught = dict.fromkeys(COPIES, 0)
    planted: set[int] = set()
    for how, original, copy in copies:
        pair = {(original.name, original.sha256), (copy.name, copy.sha256)}
        where = {number for number, members in enumerate(together) if pair <= members}
        caught[how] += bool(where)
        planted |= where
    alarms = near_duplicates(clean)
    return {
        "planted": each * len(COPIES),
        "recall": {how: count / each for how, count in caught.items()},
        "findings": len(found),
        "true": len(planted),
        "clean_findings": len(alarms),
        "clean_pairs": [[ref.name for ref in one.images[:2]] + [one.score] for one in alarms][:20],
    }


def _labels(clean: Subject, rng: np.random.Generator) -> Cell:
    images, flipped = flip_labels(clean.images, _FLIPPED, rng, len(clean.classes))
    subject = replace(clean, images=images)
    ranking = rank_labels(subject)
    assert ranking is not None  # noqa: S101 - every class has many groups
    top = ranking.indices[: int(np.ceil(_TOP * len(images)))].tolist()
    found = {one.images[0].name for one in label_errors(subject)}
    wrong = {images[index].name for index in flipped}
    return {
        "flipped": len(flipped),
        "recall_in_top": len(flipped & set(top)) / len(flipped),
        "reported": len(found),
        "reported_true": len(found & wrong),
        "clean_reported": len(label_errors(clean)),
    }


def _faults(doctor: Doctor, clean: Subject, rng: np.random.Generator) -> Cell:
    result: Cell = {}
    count = max(2, round(_SHARE * len(clean.images)))
    for how in FAULTS:
        check = blur if how == "blurred" else exposure
        images = list(clean.images)
        chosen = rng.permutation(len(images))[:count]
        for index in chosen:
            images[index] = plant_fault(images[index], how, rng)
        names = {ref.name for one in check(_measured(doctor, clean, images)) for ref in one.images}
        hits = sum(images[index].name in names for index in chosen)
        result[how] = {
            "planted": count,
            "recall": hits / count,
            "findings": len(names),
            "clean_findings": len(check(clean)),
        }
    return result


def _measured(doctor: Doctor, clean: Subject, images: Sequence[LabelledImage]) -> Subject:
    """Return the images without their features, which some checks do without."""
    return look_at(clean.classes, images, doctor._traits)


def _outliers(doctor: Doctor, clean: Subject, name: str, rng: np.random.Generator) -> Cell:
    """Put images of a set of another kind among these."""
    other = _dataset("drawn_defects" if name == "imagenet_val20" else "imagenet_val20").images
    count = max(2, round(0.01 * len(clean.images)))
    foreign = [
        replace(other[index], label=int(rng.integers(len(clean.classes))), name=f"foreign {index}")
        for index in rng.permutation(len(other))[:count].tolist()
    ]
    found = outliers(doctor.look(clean.classes, [*clean.images, *foreign]))
    hits = sum(one.images[0].name.startswith("foreign") for one in found)
    return {
        "planted": count,
        "recall": hits / count,
        "findings": len(found),
        "clean_findings": len(outliers(clean)),
    }


def _giveaway(doctor: Doctor, clean: Subject, rng: np.random.Generator) -> Cell:
    """Save every image of one class, or a third of them, as PNG."""
    label = int(rng.integers(len(clean.classes)))
    result: Cell = {"clean": [_told(one) for one in giveaways(clean)]}
    for title, share in (("whole", 1.0), ("third", 1 / 3)):
        images = [
            in_memory(as_file(decode(image.read()), kind="PNG"), image, image.name)
            if image.label == label and rng.random() < share
            else image
            for image in clean.images
        ]
        found = giveaways(_measured(doctor, clean, images))
        mine = [one for one in found if one.classes == [clean.classes[label]]]
        result[title] = any("file format" in one.problem for one in mine)
    return result


def _as_it_is(doctor: Doctor, drawn: Sequence[int]) -> list[str]:
    """Look at xsdd as its makers saved it."""
    dataset = read_folder(data_root() / "xsdd")
    images, classes = dataset.subset(drawn, "train"), [spec.name for spec in dataset.classes]
    found = giveaways(look_at(classes, images, doctor._traits))
    return [_told(one) for one in found]


def _told(finding: Finding) -> str:
    return f"{finding.severity}: {finding.problem}"


def summarise(cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Return the means over the seeds, by set and images per class."""
    rows: dict[str, list[Cell]] = {}
    for key, cell in cells.items():
        rows.setdefault(key.rsplit(" ", 1)[0], []).append(cell)
    return {key: _means(same) for key, same in rows.items()}


def _means(rows: Sequence[Cell]) -> Cell:
    copies, labels = [row["copies"] for row in rows], [row["labels"] for row in rows]
    faults = {how: [row["faults"][how] for row in rows] for how in FAULTS}
    strange = [row["outliers"] for row in rows]
    result = {
        "seeds": len(rows),
        "images": rows[0]["images"],
        "copies": {how: mean(one["recall"][how] for one in copies) for how in COPIES},
        "copies_all": mean(mean(one["recall"].values()) for one in copies),
        "copies_precision": sum(one["true"] for one in copies)
        / max(1, sum(one["findings"] for one in copies)),
        "copies_clean": mean(one["clean_findings"] for one in copies),
        "labels_in_top": mean(one["recall_in_top"] for one in labels),
        "labels_reported": mean(one["reported_true"] / one["flipped"] for one in labels),
        "labels_precision": sum(one["reported_true"] for one in labels)
        / max(1, sum(one["reported"] for one in labels)),
        "labels_clean": mean(one["clean_reported"] for one in labels),
        "outliers": mean(one["recall"] for one in strange),
        "outliers_clean": mean(one["clean_findings"] for one in strange),
        "png_class": mean(row["giveaway"]["whole"] for row in rows),
        "png_third": mean(row["giveaway"]["third"] for row in rows),
        "giveaways_clean": mean(
            sum(not told.startswith("note") for told in row["giveaway"]["clean"]) for row in rows
        ),
    }
    for how, same in faults.items():
        result[how] = mean(one["recall"] for one in same)
        result[f"{how}_clean"] = mean(one["clean_findings"] for one in same)
    return {name: round(value, 3) if isinstance(value, float) else value
            for name, value in result.items()}  # fmt: skip


def _print(summary: Mapping[str, Cell]) -> None:
    table = Table("", *summary)
    for name in next(iter(summary.values()), {}):
        table.add_row(name, *[str(row[name]) for row in summary.values()])
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
