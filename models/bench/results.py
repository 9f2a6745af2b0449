"""Results, and the file that they stand in.

No torch here: the command line reads results without it.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from models.bench.cells import Cell, Key
from models.errors import ArtifactMismatch, BadInput, file_errors
from models.files import write_atomic


class Collapse(BaseModel):
    """The distance from neural collapse on the training images, see `models.collapse.metrics`.

    `None` where there is nothing to measure: of text where a method reads none; NC2 and NC3 of two
    classes, which are what they are whatever the features.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text_nc2: float | None = None
    image_nc2: float | None = None
    text_to_image_nc3: float | None = None
    nc1: float | None = None
    nc4: float | None = None
    lc: float | None = None
    mi: float | None = None


class Seconds(BaseModel):
    """Time spent on the features of the whole set, on learning, and on the tests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: float
    tune: float
    test: float


class CellResult(BaseModel):
    """What one cell gives on one set; `None` where a value is not defined.

    Attributes:
        dataset: the set's name; `A->B` where it was learnt on A and tested on B.
        method: the method's spec.
        recipe: the hyperparameters that it was learnt with.
        n_classes: classes that it was tested on; with base-to-novel those of the base.
        n_train: images that it was learnt from.
        n_test: images that it was tested on; with base-to-novel those of the base.
        top1: share of images named right.
        macro: mean of the classes' accuracies.
        tail_macro: the same of the classes with at most 3 training images.
        worst_class: the least of the classes' accuracies.
        base: top-1 on the classes learnt, against their names alone.
        novel: top-1 on the others, against theirs alone.
        h: harmonic mean of the two.
        nc: the distance from collapse.
        ece: expected calibration error.
        seconds: time spent.
        peak_mb: the most memory that the process held meanwhile, in MiB.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    protocol: str
    method: str
    recipe: dict[str, Any]
    shots: int
    tau: float
    seed: int
    n_classes: int
    n_train: int
    n_test: int
    top1: float | None
    macro: float | None
    tail_macro: float | None
    worst_class: float | None
    base: float | None
    novel: float | None
    h: float | None
    nc: Collapse
    ece: float | None
    seconds: Seconds
    peak_mb: float

    @property
    def key(self) -> Key:
        """What it is found by."""
        return Key(self.dataset, self.protocol, self.method, self.shots, self.tau, self.seed)

    def same_as(self, other: "CellResult") -> bool:
        """Say whether all is equal but the time and the memory that it took."""
        measured = {"seconds", "peak_mb"}
        return self.model_dump(exclude=measured) == other.model_dump(exclude=measured)


class BackboneMeta(BaseModel):
    """The backbone of all results of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str
    embed_dim: int
    precision: str


class Meta(BaseModel):
    """How the results of a file were made, the last time that some were added.

    Attributes:
        versions: of Python, Shotline and the libraries that compute.
        backbone: see `BackboneMeta`.
        device: `cpu` or `cuda`.
        cpu: the processor's name.
        gpu: the GPU's, where it was used.
        threads: CPU threads of what does not fix its own.
        date: in UTC.
        command: that made them.
        datasets: the digest of each set, over classes, images, labels, groups and split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: dict[str, str]
    backbone: BackboneMeta
    device: str
    cpu: str
    gpu: str | None
    threads: int
    date: str
    command: str
    datasets: dict[str, str]


class BenchResults(BaseModel):
    """The content of a results file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meta: Meta
    results: list[CellResult]


class ResultFile:
    """Results by their keys, written whole after each addition.

    Args:
        path: the file; `None` keeps them in memory.
        meta: of this run.
        cells: in the order in which their results are to stand.

    Raises:
        BadInput: the file exists and holds no results.
        ArtifactMismatch: it holds results of another backbone, or of other images under the name
            of one of the sets.
    """

    def __init__(self, path: Path | None, meta: Meta, cells: Sequence[Cell]) -> None:
        self._path, self._meta = path, meta
        self._rows: dict[Key, CellResult] = {}
        if path is not None and path.exists():
            before = read_results(path)
            _check_same(path, before.meta, meta)
            self._meta = meta.model_copy(
                update={"datasets": {**before.meta.datasets, **meta.datasets}}
            )
            self._rows = {row.key: row for row in before.results}
        planned = [key for cell in cells for key in cell.keys]
        self._order = {key: place for place, key in enumerate(planned)}

    @property
    def content(self) -> BenchResults:
        """All results: those of other plans first, then in the order of the cells."""
        rows = sorted(self._rows.items(), key=lambda item: self._order.get(item[0], -1))
        return BenchResults(meta=self._meta, results=[row for _, row in rows])

    def lacks(self, cell: Cell) -> bool:
        """Say whether the cell has to be run."""
        return not all(key in self._rows for key in cell.keys)

    def add(self, rows: Iterable[CellResult]) -> None:
        """Keep results, and write the file.

        Raises:
            StorageFull: no space is left; the file is as it was before.
            StorageUnusable: it cannot be written.
        """
        self._rows |= {row.key: row for row in rows}
        self.write()

    def write(self) -> None:
        """Write the file, if there is one."""
        if self._path is not None:
            content = self.content.model_dump(mode="json")
            text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
            write_atomic(self._path, text.encode() + b"\n")


def harmonic_mean(base: float | None, novel: float | None) -> float | None:
    """Return H; 0 where both are, and `None` where one is missing."""
    if base is None or novel is None:
        return None
    return 2 * base * novel / (base + novel) if base + novel else 0.0


def read_results(path: Path) -> BenchResults:
    """Read a results file.

    Raises:
        BadInput: it holds something else.
        StorageUnusable: it cannot be read.
    """
    with file_errors(path, "read"):
        data = path.read_bytes()
    try:
        return BenchResults.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the text"
        raise BadInput(
            f"{path} holds no results of shotline bench: {place}: {first['msg']}.",
            fix="Name another file for the results, or remove this one.",
            field="json",
        ) from error


def _check_same(path: Path, before: Meta, now: Meta) -> None:
    if before.backbone.digest != now.backbone.digest:
        raise ArtifactMismatch(
            f"{path} holds results of the backbone {before.backbone.name!r}"
            f" ({before.backbone.digest}), and this is {now.backbone.name!r}"
            f" ({now.backbone.digest}).",
            fix="Name another file for the results, or use that backbone.",
            field="json",
        )
    arithmetic = [(m.device, m.backbone.precision) for m in (before, now)]
    if arithmetic[0] != arithmetic[1]:
        old, new = (" ".join(pair) for pair in arithmetic)
        raise ArtifactMismatch(
            f"{path} holds results computed on {old}, and this is {new}.",
            fix="Name another file for the results, or choose --device and --precision as there.",
            field="json",
        )
    for name, digest in now.datasets.items():
        if before.datasets.get(name, digest) != digest:
            raise ArtifactMismatch(
                f"{path} holds results of other images, classes or groups under the name {name!r}.",
                fix="Name another file for the results, or rename the data set.",
                field="json",
            )
