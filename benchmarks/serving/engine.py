"""The one place where the benchmarks of serving touch the gateway's encoder and artifacts."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from app.core.settings import ServerSettings, Settings
from app.predictions.engines.loading import load_encoder
from app.predictions.engines.machine import cores
from app.predictions.engines.pipeline import Result, pipeline_of
from models.artifact import Artifact, ArtifactHeader, TuningMetrics
from models.classes import ClassSpec
from models.collapse.measures import CollapseMetrics
from models.evaluation.results import Evaluation, Proportion
from models.imaging import View
from models.pixels import to_pixels
from models.recipe import Recipe
from models.trust.folds import FoldModels, MainModel, TrainingImages, Trusted, trust
from models.trust.policy import DecisionPolicy

_PER_CLASS = ("class_embeddings", "class_means", "text_features", "zero_shot_features")
_SHOTS, _FOLDS, _LOGIT_SCALE = 16, 3, 100.0


class Facts(NamedTuple):
    """What the engine is.

    Attributes:
        engine: its class.
        about: what it says of itself, and why it was chosen.
        source: the form by which the backbone was loaded.
        digest: the backbone's.
        dim: of its features.
        threads: that it computes with.
    """

    engine: str
    about: str
    source: str
    digest: str
    dim: int
    threads: int


class Engine:
    """The engine that a gateway with these settings chooses, without the gateway."""

    def __init__(self) -> None:
        settings = Settings()
        self._threads = settings.backbone.threads or cores()
        self._encoder = load_encoder(settings.backbone, settings.engine_folder)
        self._pipeline = pipeline_of(self._encoder)

    def decode(self, data: bytes) -> UInt8[np.ndarray, "3 size size"]:
        """Return an image's pixels as the gateway makes them."""
        spec = self._encoder.pixels
        return to_pixels(data, View(), spec.size, spec.interpolation)

    def encode(
        self, pixels: Sequence[UInt8[np.ndarray, "3 size size"]]
    ) -> Float[np.ndarray, "b dim"]:
        """Return the features of one batch."""
        return self._encoder.encode(np.stack(pixels))

    def begin(self, pixels: Sequence[UInt8[np.ndarray, "3 size size"]]) -> Result:
        """Take a batch, as the gateway hands it over, and return what waits for its features."""
        return self._pipeline.begin(np.stack(pixels))

    def facts(self, data: bytes) -> Facts:
        """Return what it is, from an image."""
        return Facts(
            type(self._encoder).__name__,
            self._encoder.about,
            self._encoder.source,
            self._encoder.digest,
            int(self.encode([self.decode(data)]).shape[1]),
            self._threads,
        )


def share_engine(source: Path, target: Path) -> None:
    """Let the gateway of the data folder `target` start with what was chosen for that of `source`.

    Two that are compared must not measure, and choose, each for itself.
    """
    engines, others = _engines(source), _engines(target)
    if engines.exists():
        shutil.copytree(engines, others, dirs_exist_ok=True)


def _engines(home: Path) -> Path:
    return Settings(server=ServerSettings(home=home)).engine_folder


class Made(NamedTuple):
    """An artifact, and what the database says of it."""

    artifact: Artifact
    data: bytes
    sha256: str
    classes: list[dict[str, Any]]
    metrics: dict[str, Any]


def make_artifact(facts: Facts, names: Sequence[str], seed: int) -> Made:
    """Return an artifact with random unit class embeddings, as if it had been tuned.

    Its decision rule is one that was fit to noise: as large, and as much work, as any.
    """
    count = len(names)
    embeddings = _unit(np.random.default_rng(seed), count, facts.dim)
    rule = _rule(count, facts.dim)
    header = ArtifactHeader(
        backbone=facts.source,
        backbone_digest=facts.digest,
        classes=[ClassSpec(name=name, prompt_name=name, role="ng") for name in names],
        recipe=Recipe(),
        seed=seed,
        view=View(),
        snapshot=f"sha256:{seed:064x}",
        n_train=[_SHOTS] * count,
        logit_scale=_LOGIT_SCALE,
        metrics=_metrics(count),
        created=datetime.now(UTC),
        shotline="benchmark",
        made_on="benchmark",
        rule=rule.rule,
    )
    ctx = np.zeros((4, 64), dtype=np.float32)
    artifact = Artifact(
        header, {**dict.fromkeys(_PER_CLASS, embeddings), **rule.tensors, "ctx": ctx}
    )
    data = artifact.to_bytes()
    return Made(
        artifact,
        data,
        hashlib.sha256(data).hexdigest(),
        [spec.model_dump() for spec in header.classes],
        _metrics_json(count),
    )


def _unit(random: np.random.Generator, *shape: int) -> Float[np.ndarray, "*n dim"]:
    rows = random.standard_normal(shape, dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@cache
def _rule(count: int, dim: int) -> Trusted:
    """Return a decision rule of `count` classes, from 16 noisy images of each."""
    random = np.random.default_rng(0)
    means, labels = _unit(random, count, dim), np.repeat(np.arange(count), _SHOTS)
    features = means[labels] + _unit(random, len(labels), dim)
    names = [str(number) for number in range(len(labels))]
    return trust(
        [ClassSpec(name=name, prompt_name=name, role="ng") for name in names[:count]],
        TrainingImages(
            features / np.linalg.norm(features, axis=1, keepdims=True),
            labels,
            names,
            names,
            random.uniform(1, 2, (len(labels), 4)),
        ),
        MainModel(means, means, _LOGIT_SCALE),
        FoldModels(
            [np.arange(fold, len(labels), _FOLDS).tolist() for fold in range(_FOLDS)],
            np.stack([means] * _FOLDS),
        ),
        None,
        DecisionPolicy(),
    )


@cache
def _metrics_json(count: int) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(_metrics(count).model_dump_json())
    return read


@cache
def _metrics(count: int) -> TuningMetrics:
    share = Proportion(value=1.0, low=0.8, high=1.0)
    right = Evaluation(
        basis="holdout",
        n_images=count,
        top1=share,
        macro=share,
        per_class=[share] * count,
        confusion=np.eye(count, dtype=int).tolist(),
        ece=0.0,
    )
    collapse = CollapseMetrics(**dict.fromkeys(CollapseMetrics.model_fields, 0.0))
    return TuningMetrics(
        tuned=right,
        zero_shot=right,
        collapse_before=collapse,
        collapse_after=collapse,
        history=[],
        seconds={},
    )
