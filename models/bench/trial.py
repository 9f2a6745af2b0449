"""One cell: learn from the images that its protocol draws, and test what was learnt."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from models.backbone import Backbone
from models.bench.cells import Cell, result_name
from models.bench.data import BenchSet
from models.bench.machine import THREADS, forget_peak, peak_mb
from models.bench.protocols import Episode, Exam, episode
from models.bench.results import CellResult, Collapse, Seconds, harmonic_mean
from models.bench.scores import Scores, score
from models.collapse.measures import IMAGE_SIDE, TEXT_SIDE
from models.collapse.metrics import collapse_metrics
from models.dataset import LabelledImage
from models.features import FeatureStore, image_features
from models.imaging import View
from models.methods.catalogue import method
from models.methods.method import Classifier
from models.pixels import to_pixels
from models.progress import Progress, no_progress
from models.threads import fixed_threads
from models.training_set import Images, TrainingSet

_FIXED_FOR_TWO = {m.key for m in (*TEXT_SIDE, *IMAGE_SIDE) if m.fixed_for_two}
_OF_TEXT = {m.key for m in TEXT_SIDE}
# Pixels of a training set are read once; those of a test may not fit into memory.
_KEPT_PIXELS = 2048


@dataclass(frozen=True)
class LoadedSet:
    """A set with the features of its images, and the seconds that they took.

    The features are an array, which goes to other processes as plain bytes.
    """

    data: BenchSet
    features: NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class Bench:
    """All that cells need."""

    backbone: Backbone
    sets: Mapping[str, LoadedSet]


def load_set(
    data: BenchSet, backbone: Backbone, store: FeatureStore, progress: Progress = no_progress
) -> LoadedSet:
    """Return the set with its features, computing those that `store` lacks."""
    started = time.perf_counter()
    features = image_features(data.dataset.images, backbone, View(), store, progress=progress)
    return LoadedSet(data, features.numpy(), time.perf_counter() - started)


def run_cell(bench: Bench, cell: Cell) -> list[CellResult]:
    """Run a cell; the same results bit for bit wherever it runs, but for time and memory.

    Raises:
        ShotlineError: whatever the protocol or the method refuses.
    """
    with fixed_threads(THREADS), threadpool_limits(THREADS, user_api="blas"):
        forget_peak()
        drawn = episode(cell, {name: loaded.data for name, loaded in bench.sets.items()})
        return _Trial(bench, cell, drawn).results()


class _Trial:
    """Learns once and is tested on every exam."""

    def __init__(self, bench: Bench, cell: Cell, drawn: Episode) -> None:
        self._bench, self._cell, self._drawn = bench, cell, drawn
        how = method(cell.method)
        self._pixels = how.needs_pixels
        own = bench.sets[cell.dataset]
        seen = self._images(own, drawn.indices, keep=True)
        self._train = TrainingSet(
            prompt_names=drawn.prompt_names,
            features=seen.features,
            labels=torch.tensor(drawn.labels),
            groups=[own.data.groups[index] for index in drawn.indices],
            pixels=seen.pixels,
        )
        started = time.perf_counter()
        self._classifier = how.fit(bench.backbone, self._train, cell.seed)
        self._fitted = time.perf_counter() - started

    def results(self) -> list[CellResult]:
        """Return a result for the set learnt on, and one for each target."""
        drawn, nc = self._drawn, self._collapse()
        counts = self._train.counts().tolist()
        started = time.perf_counter()
        own = self._test(drawn.own, counts)
        novel = None if drawn.novel is None else self._test(drawn.novel, ())
        seconds = time.perf_counter() - started
        rows = [self._result(self._cell.dataset, drawn.own, own, nc, seconds, novel=novel)]
        for exam in drawn.targets:
            started = time.perf_counter()
            scores = self._test(exam, () if exam.renamed else counts)
            name = result_name(self._cell.dataset, exam.dataset)
            rows.append(self._result(name, exam, scores, nc, time.perf_counter() - started))
        return rows

    def _test(self, exam: Exam, counts: Sequence[int]) -> Scores | None:
        """Return nothing where the method cannot name the exam's classes, or no image is left."""
        classifier: Classifier | None = self._classifier
        if exam.renamed:
            classifier = self._classifier.renamed(exam.prompt_names)
        if classifier is None or not exam.indices:
            return None
        images = self._images(self._bench.sets[exam.dataset], exam.indices)
        with torch.no_grad():
            logits = classifier.logits(images)
        return score(logits, torch.tensor(exam.labels), counts)

    def _images(self, loaded: LoadedSet, indices: Sequence[int], *, keep: bool = False) -> Images:
        images = [loaded.data.dataset.images[index] for index in indices]
        pixels = PixelsOf(images, self._bench.backbone, keep=keep) if self._pixels else None
        return Images(torch.from_numpy(loaded.features)[list(indices)], pixels)

    @torch.no_grad()
    def _collapse(self) -> Collapse:
        train = self._train
        features = self._classifier.image_features(Images(train.features, train.pixels)).float()
        text = self._classifier.text_features
        return _collapse(text, features, train.labels, train.n_classes)

    def _result(
        self,
        name: str,
        exam: Exam,
        scores: Scores | None,
        nc: Collapse,
        seconds: float,
        *,
        novel: Scores | None = None,
    ) -> CellResult:
        cell, splits = self._cell, self._drawn.novel is not None
        base = scores.top1 if scores and splits else None
        unseen = novel.top1 if novel else None
        return CellResult(
            dataset=name,
            protocol=cell.protocol,
            method=cell.method,
            recipe=json.loads(
                json.dumps(dict(self._classifier.settings))
            ),  # as a file gives it back
            shots=cell.shots,
            tau=cell.tau,
            seed=cell.seed,
            n_classes=len(exam.prompt_names),
            n_train=len(self._drawn.indices),
            n_test=len(exam.indices),
            top1=scores and scores.top1,
            macro=scores and scores.macro,
            tail_macro=scores and scores.tail_macro,
            worst_class=scores and scores.worst_class,
            base=base,
            novel=unseen,
            h=harmonic_mean(base, unseen),
            nc=nc,
            ece=scores and scores.ece,
            seconds=Seconds(
                features=round(self._bench.sets[exam.dataset].seconds, 3),
                tune=round(self._fitted, 3),
                test=round(seconds, 3),
            ),
            peak_mb=peak_mb(),
        )


class PixelsOf:
    """Reads the pixels of some images, for methods that prompt the image tower."""

    def __init__(self, images: Sequence[LabelledImage], backbone: Backbone, *, keep: bool) -> None:
        self._images, self._spec = images, backbone.pixels
        self._keep = keep and len(images) <= _KEPT_PIXELS
        self._kept: dict[int, Tensor] = {}

    def __call__(self, indices: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 size size"]:
        """Return the pixels of the images at `indices`."""
        return torch.stack([self._pixels(index) for index in indices.tolist()])

    def _pixels(self, index: int) -> Tensor:
        if index in self._kept:
            return self._kept[index]
        data = self._images[index].read()
        pixels = torch.from_numpy(
            to_pixels(data, View(), self._spec.size, self._spec.interpolation)
        )
        if self._keep:
            self._kept[index] = pixels
        return pixels


def _collapse(
    text: Float[Tensor, "n_classes embed_dim"] | None,
    features: Float[Tensor, "n embed_dim"],
    labels: Int[Tensor, " n"],
    n_classes: int,
) -> Collapse:
    # The image side does not depend on the text: without any, zeros stand in for it.
    stand_in = features.new_zeros(n_classes, features.shape[1])
    placed = stand_in if text is None else text.float().cpu()
    values = collapse_metrics(placed, features.cpu(), labels).model_dump()
    hidden = (_OF_TEXT if text is None else set()) | (_FIXED_FOR_TWO if n_classes == 2 else set())
    return Collapse(
        **{key: None if key in hidden else values[key] for key in Collapse.model_fields}
    )
