"""A tuning from end to end: labelled photographs and a recipe in, an artifact out."""

import gc
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from models.artifact import Artifact, ArtifactHeader, TuningMetrics
from models.backbone import IMAGE_BATCH, Backbone
from models.baselines.zero_shot import zero_shot
from models.checkpoint import Checkpoint
from models.chunks import Chunks, smaller
from models.classes import ClassSpec
from models.collapse.metrics import collapse_metrics
from models.collapse.regularizers import class_means
from models.dataset import LabelledImage, check_images, has_holdout, snapshot_digest
from models.decision import class_probabilities
from models.enough.curve import learning_curve
from models.errors import OutOfMemory
from models.evaluation.compared import probe_probabilities, wrong_images
from models.evaluation.metrics import evaluate
from models.evaluation.results import Basis, Evaluation
from models.evaluation.splits import recipe_folds
from models.faults import fault_of
from models.features import FeatureStore, image_features, statistics_of
from models.fusion import Texts, fused_embeddings
from models.imaging import View
from models.loss import EpochRecord
from models.recipe import Recipe
from models.text_encoder import CHUNK
from models.threads import fixed_threads
from models.training_set import TrainingSet
from models.trust.fitting import calibration_groups
from models.trust.folds import (
    FoldModels,
    MainModel,
    NewImages,
    TrainingImages,
    Trusted,
    trust,
)
from models.trust.photograph import PhotographStatistics
from models.trust.policy import DEFAULT_POLICY, DecisionPolicy, check_budget, check_names
from models.trust.rule import DecisionRule
from models.tuner import Tuner

Phase = Literal["features", "tune", "evaluate"]


@dataclass(frozen=True)
class TuningProgress:
    """How far a tuning is.

    Attributes:
        phase: computing `features`, tuning the prompts, or evaluating (tuning on each fold).
        done: of `total`; images in the first phase, gradient steps in the others.
        total: see `done`.
        record: of the last epoch, in the phases that have any.
        seconds_left: of this phase, from its speed so far; `None` while that is unknown.
    """

    phase: Phase
    done: int
    total: int
    record: EpochRecord | None = None
    seconds_left: float | None = None


@runtime_checkable
class Observer(Protocol):
    """Told how a tuning goes; may raise `Cancelled` from either method to stop it."""

    def on_progress(self, progress: TuningProgress) -> None:
        """Called for every batch of images encoded and after every epoch."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Called after every epoch; keep it as often as you like."""


class SilentObserver:
    """Looks away."""

    def on_progress(self, progress: TuningProgress) -> None:
        """Do nothing."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Do nothing."""


class Tuning:
    """One tuning: a snapshot, a recipe and a seed, on a backbone.

    What its accuracy is measured on: the `holdout` images where every class has enough groups of
    them, see `models.dataset.has_holdout`, else out-of-fold predictions inside the training images.
    Out-of-fold predictions also calibrate the decision rule, whatever it is measured on; where no
    class has two groups of images there are none, and no rule.

    Args:
        classes: in the order that the artifact keeps.
        images: labelled; no image may stand under two labels.
        backbone: frozen.
        recipe: the hyperparameters.
        seed: of the initial context, the batches and the folds.
        view: how images are looked at.
        store: of image features.
        observer: told how it goes.
        checkpoint: go on from here.

    Raises:
        BadDataset: see `models.dataset.check_images`.
    """

    def __init__(
        self,
        classes: Sequence[ClassSpec],
        images: Sequence[LabelledImage],
        backbone: Backbone,
        recipe: Recipe,
        *,
        seed: int,
        view: View,
        store: FeatureStore,
        observer: Observer | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        check_images(classes, images)
        self._classes, self._backbone, self._recipe = list(classes), backbone, recipe
        self._train = [image for image in images if image.split == "train"]
        self._holdout = (
            [image for image in images if image.split == "holdout"]
            if has_holdout(classes, images)
            else []
        )
        self._snapshot = snapshot_digest(classes, images)
        self._seed, self._view, self._store = seed, view, store
        self._observer = observer or SilentObserver()
        self._checkpoint = checkpoint or Checkpoint()
        self._phase: Phase = "features"
        self._prompt_names = [spec.prompt_name for spec in classes]
        self._seconds: dict[str, float] = {}
        self._policy = DEFAULT_POLICY

    def measure_by(self, policy: DecisionPolicy) -> None:
        """Measure decisions by another policy than the default; the artifact's digest stays.

        Raises:
            BadInput: costs of classes that are not there, or a budget that cannot be kept.
        """
        check_names(policy, [spec.name for spec in self._classes])
        labels = [image.label for image in self._train]
        groups = calibration_groups(self._classes, labels, [image.group for image in self._train])
        check_budget(policy.budget, groups, "there are")
        self._policy = policy

    def run(self) -> Artifact:
        """Tune, evaluate, and return the artifact.

        Where the device runs out of memory, the tuning starts again in smaller pieces: to go on
        with others would give an artifact that depends on when that happened.

        Raises:
            BadImage: an image cannot be decoded.
            BadRecipe: the recipe does not fit the classes.
            CheckpointMismatch: the checkpoint is of another tuning.
            OutOfMemory: one class, or one image, at a time is still too much.
            Cancelled: the observer said so.
        """
        with fixed_threads(self._recipe.threads):
            while True:
                try:
                    with self._backbone.in_chunks(self._checkpoint.chunks):
                        return self._artifact()
                except Exception as error:
                    if fault_of(error) != "memory":
                        raise
                    self._checkpoint = Checkpoint(chunks=self._smaller_chunks(error))
                _release_memory()  # once the error, which holds on to tensors, is gone

    def _artifact(self) -> Artifact:
        with self._timed("features"):
            features = self._features([*self._train, *self._holdout])
            statistics = statistics_of(self._train, self._backbone, self._view, self._store)
        train, holdout = features.split([len(self._train), len(self._holdout)])
        groups = [image.group for image in self._train]
        data = TrainingSet(self._prompt_names, train, _labels(self._train), groups)
        with self._timed("tune"):
            tuner = self._run(0, data, _PhaseClock("tune", self._recipe.steps))
        text, means = tuner.text_features(), class_means(train, data.labels, len(self._classes))
        before = zero_shot(self._backbone, self._prompt_names)
        embeddings = self._embeddings(Texts(text, before), data)
        with self._timed("evaluate"):
            folds = self._fold_models(data, before)
            decided = self._decided(data, holdout, embeddings, folds)
            untuned = self._probabilities(holdout if self._holdout else train, before)
            apart = [] if self._holdout else self._folds(data)
            probed = probe_probabilities(self._backbone, data, apart, holdout)
            trusted = self._trusted(data, holdout, embeddings, means, folds, statistics)
            names = [spec.name for spec in self._classes]
            curve = learning_curve(data, before, self._recipe, names, seed=self._seed)
        metrics = TuningMetrics(
            tuned=self._evaluate(decided),
            zero_shot=self._evaluate(untuned),
            linear_probe=None if probed is None else self._evaluate(probed),
            wrong=wrong_images(self._judged, decided, names),
            collapse_before=collapse_metrics(before, train, data.labels),
            collapse_after=collapse_metrics(text, train, data.labels),
            history=[asdict(record) for record in tuner.history],
            seconds=self._seconds,
            trust=trusted and trusted.metrics,
            learning_curve=curve,
        )
        tensors = {
            "class_embeddings": embeddings,
            "class_means": means,
            "ctx": tuner.prompts.ctx,
            "text_features": text,
            "zero_shot_features": before,
        }
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        if trusted is not None:
            arrays |= trusted.tensors
        return Artifact(self._header(metrics, data, trusted and trusted.rule), arrays)

    def _decided(
        self,
        data: TrainingSet,
        holdout: Float[Tensor, "held_out dim"],
        embeddings: Float[Tensor, "n_classes dim"],
        folds: FoldModels | None,
    ) -> Float[Tensor, "judged n_classes"]:
        """Return what is said of the images that accuracy is measured on."""
        if self._holdout:
            return self._probabilities(holdout, embeddings)
        assert folds is not None  # noqa: S101 - without a holdout there are images for folds
        scale = self._backbone.logit_scale
        return torch.from_numpy(folds.probabilities(data.features.numpy(), scale))

    def _trusted(
        self,
        data: TrainingSet,
        holdout: Float[Tensor, "n dim"],
        embeddings: Float[Tensor, "n_classes dim"],
        means: Float[Tensor, "n_classes dim"],
        folds: FoldModels | None,
        statistics: Sequence[PhotographStatistics],
    ) -> Trusted | None:
        """Fit the decision rule and measure it; None where there were no folds."""
        if folds is None:
            return None
        images = TrainingImages(
            features=data.features.numpy(),
            labels=data.labels.numpy(),
            groups=[image.group for image in self._train],
            digests=[image.sha256 for image in self._train],
            statistics=np.array(statistics, dtype=np.float32),
        )
        scale = self._backbone.logit_scale
        new = None
        if self._holdout:
            new = NewImages(
                holdout.numpy(),
                _labels(self._holdout).numpy(),
                statistics_of(self._holdout, self._backbone, self._view, self._store),
            )
        model = MainModel(embeddings.numpy(), means.numpy(), scale)
        return trust(self._classes, images, model, folds, new, self._policy)

    def _features(self, images: Sequence[LabelledImage]) -> Float[Tensor, "n embed_dim"]:
        clock = _PhaseClock("features", len(images))

        def progress(done: int, total: int) -> None:
            self._observer.on_progress(clock.at(done, total))

        return image_features(images, self._backbone, self._view, self._store, progress=progress)

    def _run(self, index: int, data: TrainingSet, clock: "_PhaseClock", done: int = 0) -> Tuner:
        """Tune run number `index` to its end, from the checkpoint where it holds that run."""
        generator = torch.Generator().manual_seed(self._seed)
        tuner = Tuner(
            self._backbone,
            data,
            self._recipe,
            generator,
            callbacks=[_Reporter(partial(self._report, index), clock, done)],
            checkpoint=self._checkpoint.run(index),
        )
        tuner.run()
        return tuner

    def _report(self, index: int, tuner: Tuner, progress: TuningProgress) -> None:
        """Tell the observer of an epoch of run number `index`."""
        self._checkpoint = self._checkpoint.with_run(index, tuner.checkpoint())
        self._observer.on_checkpoint(self._checkpoint)
        self._observer.on_progress(progress)

    def _fold_models(
        self, data: TrainingSet, written: Float[Tensor, "n_classes dim"]
    ) -> FoldModels | None:
        """Tune a model without each fold; None where no class has a second group to leave out."""
        labels, groups = data.labels.tolist(), data.groups or ()
        if len(set(zip(labels, groups, strict=True))) == len(set(labels)):
            return None
        folds = self._folds(data)
        if len(folds) < 2:
            return None
        steps = self._recipe.steps
        clock = _PhaseClock("evaluate", steps * len(folds))
        models = []
        for number, (train, _) in enumerate(folds):
            part = data.subset(train)
            tuner = self._run(number + 1, part, clock, done=number * steps)
            models.append(self._embeddings(Texts(tuner.text_features(), written), part).numpy())
        return FoldModels([test for _, test in folds], np.stack(models))

    def _folds(self, data: TrainingSet) -> list[tuple[list[int], list[int]]]:
        return recipe_folds(data, self._recipe, self._seed)

    def _embeddings(self, texts: Texts, data: TrainingSet) -> Float[Tensor, "n_classes dim"]:
        return fused_embeddings(texts, data, self._recipe, self._backbone.logit_scale)

    def _probabilities(
        self, features: Float[Tensor, "n dim"], embeddings: Float[Tensor, "n_classes dim"]
    ) -> Float[Tensor, "n n_classes"]:
        scale = self._backbone.logit_scale
        return torch.from_numpy(class_probabilities(features.numpy(), embeddings.numpy(), scale))

    @property
    def _judged(self) -> list[LabelledImage]:
        """The images that accuracy is measured on."""
        return self._holdout or self._train

    def _evaluate(self, probabilities: Float[Tensor, "n n_classes"]) -> Evaluation:
        basis: Basis = "holdout" if self._holdout else "out-of-fold"
        return evaluate(probabilities, _labels(self._judged), basis)

    def _header(
        self, metrics: TuningMetrics, data: TrainingSet, rule: DecisionRule | None
    ) -> ArtifactHeader:
        return ArtifactHeader(
            format_version=1 if rule is None else 2,
            backbone=self._backbone.source,
            backbone_digest=self._backbone.digest,
            classes=self._classes,
            recipe=self._recipe,
            seed=self._seed,
            view=self._view,
            snapshot=self._snapshot,
            n_train=torch.bincount(data.labels, minlength=len(self._classes)).tolist(),
            logit_scale=self._backbone.logit_scale,
            rule=rule,
            metrics=metrics,
            created=datetime.now(UTC),
            shotline=version("shotline"),
            made_on=", ".join([*_made_on(self._backbone), *self._checkpoint.chunks.named()]),
        )

    def _smaller_chunks(self, error: Exception) -> Chunks:
        """Return smaller pieces of what the memory did not suffice for.

        Raises:
            OutOfMemory: there are none.
        """
        now = self._checkpoint.chunks
        if self._phase == "features":
            images = smaller(now.images or IMAGE_BATCH)
            if images is not None:
                return now.model_copy(update={"images": images})
        else:
            texts = smaller(min(now.texts or CHUNK, len(self._classes)))
            if texts is not None:
                return now.model_copy(update={"texts": texts})
        one = "image" if self._phase == "features" else "class"
        raise OutOfMemory(
            f"The device ran out of memory, even with one {one} at a time.",
            fix="Free the device of other work (nvidia-smi shows it), or use a smaller backbone or"
            " a device with more memory; then start the tuning again.",
        ) from error

    @contextmanager
    def _timed(self, phase: Phase) -> Iterator[None]:
        self._phase = phase
        start = time.monotonic()
        yield
        self._seconds[phase] = round(time.monotonic() - start, 3)


class _PhaseClock:
    """Estimates the seconds left of a phase from its speed since it was first asked."""

    def __init__(self, phase: Phase, total: int) -> None:
        self._phase, self._total = phase, total
        self._start: tuple[float, int] | None = None

    def at(
        self, done: int, total: int | None = None, record: EpochRecord | None = None
    ) -> TuningProgress:
        now, total = time.monotonic(), total or self._total
        if self._start is None:
            self._start = (now, done)
        since, first = self._start
        left = (now - since) / (done - first) * (total - done) if done > first else None
        return TuningProgress(self._phase, done, total, record, left)


class _Reporter:
    """A tuner's callback that adds to its epochs how far the phase is, and passes them on."""

    def __init__(
        self, report: Callable[[Tuner, TuningProgress], None], clock: _PhaseClock, done: int
    ) -> None:
        self._report, self._clock, self._done = report, clock, done

    def on_epoch(self, tuner: Tuner, record: EpochRecord) -> None:
        progress = self._clock.at(self._done + tuner.step, record=record)
        self._report(tuner, progress)


def _made_on(backbone: Backbone) -> tuple[str, str, str]:
    """Name what rounds: processor or GPU, arithmetic, PyTorch."""
    chip = (
        torch.cuda.get_device_name(backbone.device)
        if backbone.device.type == "cuda"
        else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    )
    return chip, backbone.precision, f"PyTorch {torch.__version__}"


def _release_memory() -> None:
    """Give back what an attempt that failed has left on the device."""
    gc.collect()
    torch.cuda.empty_cache()


def _labels(images: Sequence[LabelledImage]) -> Tensor:
    return torch.tensor([image.label for image in images], dtype=torch.long)
