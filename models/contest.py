"""A version against what it is to replace, on images that neither of them was tuned on.

Those are the labelled images that are in no version's training part, where there are enough of
them; else every image, predicted by models that both recipes made again without its fold.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.artifact import Artifact
from models.backbone import Backbone
from models.baselines.linear_probe import LinearProbe
from models.baselines.zero_shot import zero_shot
from models.dataset import MIN_HOLDOUT_GROUPS, LabelledImage
from models.decision import class_probabilities
from models.errors import BadDataset
from models.evaluation.contest import GateResult, Opponent, OpponentName
from models.evaluation.metrics import evaluate
from models.evaluation.paired import paired_difference
from models.evaluation.results import Basis
from models.evaluation.splits import cross_validation_folds
from models.features import FeatureStore, image_features
from models.methods.method import Linear
from models.threads import fixed_threads
from models.training_set import Images, TrainingSet
from models.tuned_embeddings import tuned_embeddings
from models.tuning import Phase, TuningProgress

Told = Callable[[TuningProgress], None]
Probabilities = Float[Tensor, "n n_classes"]


@dataclass(frozen=True)
class Contender:
    """A version, and what it takes to tune it again.

    Attributes:
        name: what messages call it.
        artifact: the version.
        backbone: that it belongs to.
        train: the images that it was tuned on.
    """

    name: str
    artifact: Artifact
    backbone: Backbone
    train: Sequence[LabelledImage]

    @property
    def groups(self) -> set[str]:
        """The groups of what it was tuned on."""
        return {image.group for image in self.train}

    @property
    def digests(self) -> set[str]:
        """The sha256 of what it was tuned on."""
        return {image.sha256 for image in self.train}


class _Side:
    """A contender with its features at hand: those of its training images, and of the tested."""

    def __init__(self, contender: Contender, images: Sequence[LabelledImage]) -> None:
        self.contender, self.images = contender, images
        header = contender.artifact.header
        self.recipe, self.seed, self.scale = header.recipe, header.seed, header.logit_scale
        self._prompt_names = [spec.prompt_name for spec in header.classes]
        self._labels = torch.tensor([image.label for image in contender.train], dtype=torch.long)
        self.train = self.tested = torch.empty(0)

    def read(self, store: FeatureStore, progress: Callable[[int, int], None]) -> None:
        every = [*self.contender.train, *self.images]
        view, backbone = self.contender.artifact.header.view, self.contender.backbone
        features = image_features(every, backbone, view, store, progress=progress)
        self.train, self.tested = features.split([len(self.contender.train), len(self.images)])

    def set_without(self, places: Sequence[int]) -> TrainingSet:
        """Return the training images that share nothing with the tested ones at `places`.

        Raises:
            BadDataset: a class has none.
        """
        groups = {self.images[place].group for place in places}
        digests = {self.images[place].sha256 for place in places}
        left = [
            index
            for index, image in enumerate(self.contender.train)
            if image.group not in groups and image.sha256 not in digests
        ]
        everything = TrainingSet(
            self._prompt_names,
            self.train,
            self._labels,
            [image.group for image in self.contender.train],
        )
        found = everything.subset(left)
        if missing := [name for name, n in zip(self._names, found.counts(), strict=True) if not n]:
            raise BadDataset(
                f"Of the class {missing[0]!r}, {self.contender.name} was tuned on images of too few"
                " parts: none is left beside those that are to be predicted.",
                fix=f"Add images of {missing[0]!r} as a holdout, of at least"
                f" {MIN_HOLDOUT_GROUPS} parts in each class; or have an admin override the gates.",
                field="images",
            )
        return found

    @property
    def _names(self) -> list[str]:
        return [spec.name for spec in self.contender.artifact.header.classes]

    def as_it_is(self) -> Probabilities:
        return self._probabilities(self.tested, self.contender.artifact.class_embeddings)

    def again(
        self, data: TrainingSet, places: Sequence[int], told: Callable[[int], None]
    ) -> Tensor:
        """Tune on `data`, then predict the tested images at `places`."""
        embeddings = tuned_embeddings(
            self.contender.backbone, data, self.recipe, self.seed, self._written, told
        )
        return self._probabilities(self.tested[list(places)], embeddings.numpy())

    @cached_property
    def _written(self) -> Float[Tensor, "n_classes dim"]:
        return zero_shot(self.contender.backbone, self._prompt_names)

    def untuned(self) -> Probabilities:
        written = self.contender.artifact.tensors["zero_shot_features"]
        return self._probabilities(self.tested, written)

    def probe(self, data: TrainingSet, places: Sequence[int]) -> Tensor:
        fitted: Linear = LinearProbe().fit(self.contender.backbone, data, self.seed)
        return fitted.logits(Images(self.tested[list(places)]))

    def _probabilities(self, features: Tensor, embeddings: np.ndarray) -> Probabilities:
        return torch.from_numpy(class_probabilities(features.numpy(), embeddings, self.scale))


class Contest:
    """Measures `candidate` against `production`, zero-shot and a linear probe.

    Args:
        images: labelled, as the project has them now; each label is a place in the list of classes.
        candidate: is to be promoted.
        production: is in production; None where nothing is.
        store: of image features.
        told: told how far it is; may raise `Cancelled` to stop it.

    Raises:
        BadDataset: a class without images.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        candidate: Contender,
        production: Contender | None,
        *,
        store: FeatureStore,
        told: Told = lambda _: None,
    ) -> None:
        self._classes = candidate.artifact.header.classes
        self._contenders = [candidate] if production is None else [candidate, production]
        unseen = _unseen(images, self._contenders)
        whole = all(n >= MIN_HOLDOUT_GROUPS for n in _groups(unseen, len(self._classes)))
        self.basis: Basis = "holdout" if whole else "out-of-fold"
        self._images = unseen if whole else list(images)
        self._store, self._told = store, told
        self._started = 0.0
        self._require_images()

    def run(self) -> GateResult:
        """Measure.

        Raises:
            BadImage: an image cannot be decoded.
            BadDataset: a recipe cannot be tuned again without a fold.
            Cancelled: `told` said so.
        """
        self._started = time.monotonic()
        sides = [_Side(contender, self._images) for contender in self._contenders]
        with fixed_threads(sides[0].recipe.threads):
            for side in sides:
                side.read(self._store, lambda done, total: self._say("features", done, total))
            measure = self._on_unseen if self.basis == "holdout" else self._out_of_fold
            return self._result(measure(sides), sides[0].seed)

    def _require_images(self) -> None:
        for spec, count in zip(
            self._classes, _groups(self._images, len(self._classes)), strict=True
        ):
            if not count:
                raise BadDataset(
                    f"The project has no image of the class {spec.name!r} to measure on.",
                    fix=f"Add photographs of {spec.name!r}, then start the gates again.",
                    field="images",
                )

    def _on_unseen(self, sides: Sequence[_Side]) -> dict[str, Tensor]:
        own = sides[0]
        everywhere = range(len(self._images))
        found = {"candidate": own.as_it_is()}
        if len(sides) > 1:
            found["production"] = sides[1].as_it_is()
        found["zero-shot"] = own.untuned()
        found["linear-probe"] = own.probe(own.set_without(everywhere), everywhere)
        self._say("evaluate", 1, 1)
        return found

    def _out_of_fold(self, sides: Sequence[_Side]) -> dict[str, Tensor]:
        """Predict every image by what was tuned without its fold."""
        names = ["candidate", "production"][: len(sides)]
        empty = torch.empty(len(self._images), len(self._classes))
        found = {name: empty.clone() for name in [*names, "linear-probe"]}
        folds = list(self._folds(sides[0]))
        total, done = len(folds) * sum(side.recipe.steps for side in sides), 0
        for test in folds:
            for name, side in zip(names, sides, strict=True):
                data, told = side.set_without(test), partial(self._step, done, total)
                found[name][test] = side.again(data, test, told)
                done += side.recipe.steps
                if side is sides[0]:
                    found["linear-probe"][test] = side.probe(data, test)
        return found | {"zero-shot": sides[0].untuned()}

    def _folds(self, side: _Side) -> Iterator[list[int]]:
        """Cut the images into folds, each with its share of every contender's training images."""
        seen = [contender.digests for contender in self._contenders]
        kinds = [
            (image.label, *(image.sha256 in digests for digests in seen)) for image in self._images
        ]
        numbers = {kind: number for number, kind in enumerate(sorted(set(kinds)))}
        labels = [numbers[kind] for kind in kinds]
        groups = [image.group for image in self._images]
        folds = side.recipe.n_folds(len(self._classes), len(labels))
        for _, test in cross_validation_folds(labels, groups, folds, side.seed):
            yield test

    def _result(self, found: dict[str, Tensor], seed: int) -> GateResult:
        labels = np.array([image.label for image in self._images])
        groups = [image.group for image in self._images]
        right = {name: each.argmax(dim=1).numpy() == labels for name, each in found.items()}
        own = found["candidate"]
        names: list[OpponentName] = ["production", "zero-shot", "linear-probe"]
        opponents = [
            Opponent(
                name=name,
                macro=evaluate(found[name].softmax(1), torch.from_numpy(labels), self.basis).macro,
                difference=paired_difference(
                    right["candidate"], right[name], labels, groups, seed % 2**63
                ),
            )
            for name in names
            if name in found
        ]
        return GateResult(
            basis=self.basis,
            groups=_groups(self._images, len(self._classes)),
            candidate=evaluate(own, torch.from_numpy(labels), self.basis),
            opponents=opponents,
            seconds=round(time.monotonic() - self._started, 3),
        )

    def _step(self, done: int, total: int, step: int) -> None:
        self._say("evaluate", done + step, total)

    def _say(self, phase: Phase, done: int, total: int) -> None:
        self._told(TuningProgress(phase, done, total))


def _unseen(
    images: Sequence[LabelledImage], contenders: Sequence[Contender]
) -> list[LabelledImage]:
    """Return the images of which none of the contenders saw anything in its tuning."""
    groups = set().union(*(contender.groups for contender in contenders))
    digests = set().union(*(contender.digests for contender in contenders))
    return [image for image in images if image.group not in groups and image.sha256 not in digests]


def _groups(images: Sequence[LabelledImage], n_classes: int) -> list[int]:
    """Count the groups of each class."""
    found: list[set[str]] = [set() for _ in range(n_classes)]
    for image in images:
        found[image.label].add(image.group)
    return [len(groups) for groups in found]
