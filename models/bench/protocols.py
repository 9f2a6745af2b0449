"""The protocols of the field: who is trained on what, and tested on what, under which names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from models.bench.cells import Cell
from models.bench.data import BenchSet
from models.bench.draws import Draw, class_counts, draw
from models.classes import normalise_name
from models.errors import BadDataset


@dataclass(frozen=True)
class Exam:
    """Images that a classifier is tested on.

    Attributes:
        dataset: the name of their set.
        indices: of the images in that set.
        labels: of these, in the order of `prompt_names`.
        prompt_names: the classes' names, which are given to the classifier where `renamed`.
        renamed: whether they are other classes than those it has learnt.
    """

    dataset: str
    indices: list[int]
    labels: list[int]
    prompt_names: list[str]
    renamed: bool = False


@dataclass(frozen=True)
class Episode:
    """Images to learn from, with their labels in the order of `prompt_names`, and the exams.

    The first exam is on the classes and the set that are learnt; `novel` and `targets` are further
    ones, by the protocol.
    """

    indices: list[int]
    labels: list[int]
    prompt_names: list[str]
    own: Exam
    novel: Exam | None = None
    targets: tuple[Exam, ...] = ()


def episode(cell: Cell, sets: Mapping[str, BenchSet]) -> Episode:
    """Return what the cell's protocol and seed make of its data.

    Raises:
        BadDataset: a class without images to train on and to test on, too few classes for
            base-to-novel, or domains of other classes.
    """
    data = sets[cell.dataset]
    learnt = list(range(len(data.dataset.classes)))
    if cell.protocol == "base-to-novel":
        learnt = base_classes(data)
    drawn = _draw(data, learnt, cell)
    own = _exam(data, drawn.test, learnt)
    novel: Exam | None = None
    targets: tuple[Exam, ...] = ()
    if cell.protocol == "base-to-novel":
        rest = [label for label in range(len(data.dataset.classes)) if label not in learnt]
        novel = _exam(data, drawn.test, rest, renamed=True)
    elif cell.protocol == "cross-dataset":
        targets = tuple(_other_set(sets[name]) for name in cell.targets)
    elif cell.protocol == "domain":
        targets = tuple(_domain(data, sets[name], drawn.train) for name in cell.targets)
    return Episode(
        indices=drawn.train,
        labels=[learnt.index(data.labels[index]) for index in drawn.train],
        prompt_names=own.prompt_names,
        own=own,
        novel=novel,
        targets=targets,
    )


def base_classes(data: BenchSet) -> list[int]:
    """Return the first half of the classes in order, rounded up.

    Raises:
        BadDataset: fewer than four classes, of which two of each half can be told apart.
    """
    n_classes = len(data.dataset.classes)
    if n_classes < 4:
        raise BadDataset(
            f"{data.name} has {n_classes} classes; base-to-novel needs at least 4, two of each"
            " half.",
            fix="Use --protocol few-shot, or a set of more classes.",
            field="protocol",
        )
    return list(range((n_classes + 1) // 2))


def check_domains(source: BenchSet, target: BenchSet) -> dict[int, int]:
    """Return the class of `source` that each class of `target` is.

    Raises:
        BadDataset: a class of one that the other does not have.
    """
    known, found = (
        {normalise_name(spec.name): label for label, spec in enumerate(data.dataset.classes)}
        for data in (source, target)
    )
    odd = sorted(known.keys() ^ found.keys())
    if odd:
        first, second = (source, target) if odd[0] in known else (target, source)
        raise BadDataset(
            f"{first.name} has the class {odd[0]!r}, and {second.name} does not"
            f" ({len(odd)} such class(es)).",
            fix="Give the same classes, under the same names, to every set of --protocol domain;"
            " --protocol cross-dataset takes others.",
            field="protocol",
        )
    return {label: known[name] for name, label in found.items()}


def _draw(data: BenchSet, learnt: Sequence[int], cell: Cell) -> Draw:
    counts = class_counts(len(learnt), cell.shots, cell.tau, cell.seed)
    wanted = [0] * len(data.dataset.classes)
    for label, count in zip(learnt, counts, strict=True):
        wanted[label] = count
    return draw(data, wanted, cell.shots, cell.seed)


def _exam(
    data: BenchSet, indices: Sequence[int], classes: Sequence[int], *, renamed: bool = False
) -> Exam:
    labels, chosen = data.labels, set(classes)
    kept = [index for index in indices if labels[index] in chosen]
    return Exam(
        dataset=data.name,
        indices=kept,
        labels=[classes.index(labels[index]) for index in kept],
        prompt_names=[data.prompt_names[label] for label in classes],
        renamed=renamed,
    )


def _to_test(data: BenchSet) -> list[int]:
    """Return a set's images for those who did not learn on it."""
    images = data.dataset.images
    if not data.split_given:
        return list(range(len(images)))
    return [index for index, image in enumerate(images) if image.split == "holdout"]


def _other_set(data: BenchSet) -> Exam:
    return _exam(data, _to_test(data), range(len(data.dataset.classes)), renamed=True)


def _domain(source: BenchSet, target: BenchSet, train: Sequence[int]) -> Exam:
    """A shifted copy of a training image, known by its name, bytes or group, is no test of it."""
    classes = check_domains(source, target)
    seen = {
        mark
        for index in train
        for image in [source.dataset.images[index]]
        for mark in (image.name, image.sha256, image.group)
    }
    images = target.dataset.images
    kept = [
        index
        for index in _to_test(target)
        if seen.isdisjoint((images[index].name, images[index].sha256, images[index].group))
    ]
    labels = [classes[target.labels[index]] for index in kept]
    return Exam(target.name, kept, labels, source.prompt_names)


def check_cells(cells: Sequence[Cell], sets: Mapping[str, BenchSet]) -> None:
    """Refuse what the data of some cell would refuse, before any of them is run.

    Raises:
        BadDataset: see `episode`.
    """
    seen: set[tuple[str, int, float, int]] = set()
    for cell in cells:
        drawn = (cell.dataset, cell.shots, cell.tau, cell.seed)
        if drawn not in seen:
            seen.add(drawn)
            episode(cell, sets)
